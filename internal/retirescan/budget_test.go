package retirescan

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// garbageSecret returns a Secret with n texts that nothing decrypts.
func garbageSecret(namespace, name string, n int) *corev1.Secret {
	data := map[string]string{}
	for i := range n {
		data[fmt.Sprintf("e%05d", i)] = "vault:v1:" + encode(fmt.Sprintf("%s %s %040d", namespace, name, i))
	}
	return newSecret(namespace, name, data)
}

// TestBudget has a namespace with more texts than the budget. Only keys that are usable in it wait.
func TestBudget(t *testing.T) {
	v := newVault("all", "mallory", "shop")
	keys := v.retiring(map[string][]string{"mallory": {"x", "mallory"}, "shop": {"shop"}})
	secrets := []*corev1.Secret{garbageSecret("mallory", "a", 300), garbageSecret("mallory", "b", 300),
		garbageSecret("shop", "a", 50), newSecret("shop", "b", map[string]string{"x": v.strict("all", 2, "shop", "b", "x")})}
	r := scan(t, &Scanner{Vault: v, Keys: keys, Budget: 1000, ResourceVersion: "7"}, secrets...)
	if len(r.Unfinished) != 1 || r.Unfinished["mallory"].Secret != "a" {
		t.Errorf("unfinished: %+v", r.Unfinished)
	}
	if want := "map[transit/keys/all:[mallory] transit/keys/mallory:[mallory]]"; fmt.Sprint(r.Delayed) != want {
		t.Errorf("delayed: %v, want %s", r.Delayed, want)
	}
	if !r.MayRetire(transitKey("shop")) || r.MayRetire(transitKey("mallory")) || r.MayRetire(transitKey("all")) {
		t.Errorf("%+v", r)
	}
	if r.InUse[transitKey("all")].Count != 1 {
		t.Errorf("a text of another namespace was not found: %+v", r.InUse)
	}
	if r.Attempts > 1000+3*3*51 {
		t.Errorf("%d attempts", r.Attempts)
	}
}

// TestReservedBudget has texts that decrypt with the first key: what they reserve for others is not spent.
func TestReservedBudget(t *testing.T) {
	v := newVault("a", "b", "c", "d")
	data := map[string]string{}
	for i := range 100 {
		data[fmt.Sprint(i)] = v.strict("c", 2, "shop", "db", fmt.Sprint(i))
	}
	r := scan(t, &Scanner{Vault: v, Keys: v.retiring(nil), Budget: 320},
		labeled(newSecret("shop", "db", data), "c"))
	if len(r.Unfinished) > 0 || r.InUse[transitKey("c")].Count != 100 {
		t.Errorf("%d found, unfinished: %v", r.InUse[transitKey("c")].Count, r.Unfinished)
	}
}

// TestResume finishes a namespace in several runs, in which each text is tried.
func TestResume(t *testing.T) {
	v := newVault("app", "other")
	last := newSecret("shop", "z", map[string]string{"x": v.strict("app", 2, "shop", "z", "x")})
	secrets := []*corev1.Secret{garbageSecret("shop", "a", 40), garbageSecret("shop", strings.Repeat("b", 60), 40),
		garbageSecret("shop", strings.Repeat("b", 61), 40),
		garbageSecret("shop", strings.Repeat("c", 200), 7), garbageSecret("shop", strings.Repeat("c", 201), 7), last}
	var resume map[string]Cursor
	attempts, runs := 0, 0
	for found := false; !found; runs++ {
		if runs > 30 {
			t.Fatal("it does not end")
		}
		r := scan(t, &Scanner{Vault: v, Keys: v.retiring(nil), Budget: 100, ResourceVersion: "7", Resume: resume}, secrets...)
		found, resume = r.InUse[transitKey("app")].Count > 0, r.Unfinished
		if attempts += r.Attempts; (len(resume) == 0) != found || !found && r.MayRetire(transitKey("app")) {
			t.Fatalf("run %d: found %t, unfinished: %v", runs, found, resume)
		}
	}
	// Of the Secrets with long names, some are tried again.
	if all := 135 * 6; runs < all/100 || attempts < all || attempts > all+14*6 {
		t.Errorf("%d runs, %d attempts, want %d", runs, attempts, all)
	}
}

// TestResumeFromTheStart has changes after which a run must not skip what the last one tried.
func TestResumeFromTheStart(t *testing.T) {
	v := newVault("app", "other")
	first := newSecret("shop", "a", map[string]string{"x": v.strict("app", 2, "shop", "a", "x")})
	cursor := func(s *Scanner, found uint64) Cursor {
		s.prepare()
		return Cursor{ResourceVersion: 7, Secret: "b", Keys: s.keysDigest, Found: found}
	}
	for name, change := range map[string]func(*Scanner, *Cursor, *corev1.Secret){
		"nothing":          func(*Scanner, *Cursor, *corev1.Secret) {},
		"Secret":           func(_ *Scanner, _ *Cursor, s *corev1.Secret) { s.ResourceVersion = "8" },
		"not a number":     func(_ *Scanner, _ *Cursor, s *corev1.Secret) { s.ResourceVersion = "a7" },
		"cluster restored": func(s *Scanner, _ *Cursor, _ *corev1.Secret) { s.ResourceVersion = "6" },
		"unknown now":      func(s *Scanner, _ *Cursor, _ *corev1.Secret) { s.ResourceVersion = "" },
		"unknown then":     func(_ *Scanner, c *Cursor, _ *corev1.Secret) { c.ResourceVersion = 0 },
		"other keys":       func(_ *Scanner, c *Cursor, _ *corev1.Secret) { c.Keys = "x" },
		"name":             func(_ *Scanner, c *Cursor, _ *corev1.Secret) { c.Secret = "a" },
		"no cursor":        func(_ *Scanner, c *Cursor, _ *corev1.Secret) { *c = Cursor{} },
	} {
		t.Run(name, func(t *testing.T) {
			secret := first.DeepCopy()
			s := &Scanner{Vault: v, Keys: v.retiring(nil), ResourceVersion: "9"}
			c := cursor(&Scanner{Vault: v, Keys: v.retiring(nil)}, 0)
			change(s, &c, secret)
			s.Resume = map[string]Cursor{"shop": c}
			r := scan(t, s, secret)
			if tried := r.InUse[transitKey("app")].Count == 1; tried != (name != "nothing") {
				t.Errorf("tried: %t", tried)
			}
		})
	}
	t.Run("keys", func(t *testing.T) {
		keys := v.retiring(nil)
		before := digestKeys(keys)
		for i, change := range []func(*Key){
			func(k *Key) { k.Mount = "x" }, func(k *Key) { k.Name = "x" }, func(k *Key) { k.From = 2 },
			func(k *Key) { k.To = 6 }, func(k *Key) { k.Derived = false }, func(k *Key) { k.Namespaces = []string{"x"} },
		} {
			changed := keys[0]
			change(&changed)
			if digestKeys([]Key{changed, keys[1]}) == before {
				t.Errorf("change %d makes no difference", i)
			}
		}
	})
}

// TestFoundBefore resumes after a part of the namespace in which keys are in use, or in which Vault refused
// one.
func TestFoundBefore(t *testing.T) {
	v := newVault("app", "other")
	missing := Key{Key: transitKey("missing"), From: 1, To: 5, Derived: true}
	secrets := []*corev1.Secret{newSecret("shop", "a", map[string]string{"x": v.strict("app", 2, "shop", "a", "x")}),
		garbageSecret("shop", "b", 40)}
	first := &Scanner{Vault: v, Keys: append(v.retiring(nil), missing), Budget: 100, ResourceVersion: "7"}
	r := scan(t, first, secrets...)
	if len(r.Unfinished) != 1 || r.MayRetire(transitKey("app")) {
		t.Fatalf("%+v", r)
	}
	v.setKey(missing.Key, 10, 1, true)
	second := *first
	second = Scanner{Vault: v, Keys: first.Keys, ResourceVersion: "8", Resume: r.Unfinished}
	r = scan(t, &second, secrets...)
	if len(r.Unfinished) > 0 || r.InUse[transitKey("app")].Count > 0 || len(r.Errors) > 0 {
		t.Fatalf("%+v", r)
	}
	for name, want := range map[string]bool{"app": false, "missing": false, "other": true} {
		if got := r.MayRetire(transitKey(name)); got != want {
			t.Errorf("%s may be retired: %t", name, got)
		}
	}
	third := Scanner{Vault: v, Keys: first.Keys, ResourceVersion: "9", Resume: r.Unfinished}
	if r = scan(t, &third, secrets...); r.InUse[transitKey("app")].Count != 1 || !r.MayRetire(missing.Key) {
		t.Errorf("the scan did not begin again: %+v", r)
	}
}

// TestNights scans random clusters with small budgets until nothing is unfinished. No run permits to retire
// a key that is in use, and in the end every other key may be retired.
func TestNights(t *testing.T) {
	rounds := 500
	if testing.Short() {
		rounds = 50
	}
	seed := rand.Uint64()
	for i := range rounds {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		v, keys := generatorKeys()
		g := newRound(r, keys, generatorNamespaces, v.encryptText)
		budget := 1 + r.IntN(40)
		var result Result
		for night := 1; ; night++ {
			if night > 200 {
				t.Fatalf("seed %d, round %d: it does not end", seed, i)
			}
			result = scan(t, &Scanner{Vault: v, Keys: keys, Budget: budget, ResourceVersion: fmt.Sprint(night),
				Resume: result.Unfinished}, g.secrets...)
			for _, k := range keys {
				// An unfinished namespace does not delay a key that is not usable in it.
				used := slices.ContainsFunc(g.want.InUse[k.Key], func(f Found) bool { return k.usable(f.Namespace) })
				wrong := used && result.MayRetire(k.Key)
				if len(result.Unfinished) == 0 && len(g.want.InUse[k.Key]) == 0 && len(g.want.OlderReleases) == 0 {
					wrong = !result.MayRetire(k.Key)
				}
				if wrong {
					t.Fatalf("seed %d, round %d, budget %d, night %d: %s is in use: %t, may be retired: %t, delayed: %v",
						seed, i, budget, night, k.Key, used, result.MayRetire(k.Key), result.Delayed)
				}
			}
			if len(result.Unfinished) == 0 {
				break
			}
		}
	}
}

func TestCursorSize(t *testing.T) {
	for _, name := range []string{"x", strings.Repeat("x", 50), strings.Repeat("x", 253)} {
		c := Cursor{ResourceVersion: math.MaxUint64, Secret: name, Offset: math.MaxInt, Keys: digestKeys(nil),
			Found: math.MaxUint64}
		text, err := json.Marshal(c.fit())
		if err != nil || len(text) > 150 {
			t.Errorf("%d bytes: %s, %v", len(text), text, err)
		}
	}
	c := Cursor{ResourceVersion: 1e9, Secret: strings.Repeat("x", 80), Offset: 1000, Keys: digestKeys(nil)}
	if c != c.fit() {
		t.Error("it was cut")
	}
}
