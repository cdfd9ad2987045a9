package retirescan

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// annotate sets annotations, given as names and values.
func annotate(s *corev1.Secret, annotations ...string) *corev1.Secret {
	for i := 0; i < len(annotations); i += 2 {
		s.Annotations[annotations[i]] = annotations[i+1]
	}
	return s
}

// TestInUse has the Secrets that a rotator misses that trusts labels, and only some places. Each needs an
// old version.
func TestInUse(t *testing.T) {
	v := newVault("app", "other")
	v.setKey(transitKey("plain"), 10, 1, false)
	elsewhere := ciphertext.Key{Mount: "team/transit", Name: "app"}
	v.setKey(elsewhere, 10, 1, true)
	strict := ciphertext.Strict.Context("shop", "db", "password")
	old := v.encrypt(transitKey("app"), 2, strict, nil)
	own := func(text string) *corev1.Secret { return newSecret("shop", "db", map[string]string{"password": text}) }
	for name, test := range map[string]struct {
		secret *corev1.Secret
		key    ciphertext.Key
		want   Found
	}{
		"label": {secret: labeled(own(old), "app"), want: Found{Labeled: true}},
		// Each of these once ended with a retired key and pods that could not start.
		"label of another key": {secret: labeled(own(old), "other")},
		"label was lost":       {secret: own(old)},
		"label of no key":      {secret: labeled(own(old), "none")},
		"mount annotation was lost": {
			secret: labeled(own(v.encrypt(elsewhere, 2, strict, nil)), "app"), key: elsewhere},
		"mount annotation is malformed": {secret: annotate(labeled(own(old), "app"), ciphertext.AnnotationTransitMount, "/")},
		"copy of kubectl apply": {
			secret: annotate(own("x"), ciphertext.AnnotationLastApplied, lastApplied("shop", "db", "password", old)),
			want:   Found{Annotation: ciphertext.AnnotationLastApplied}},

		"another annotation": {secret: annotate(own("x"), "example.com/copy", old),
			want: Found{Annotation: "example.com/copy"}},
		"annotation of an empty Secret": {secret: annotate(newSecret("shop", "db", nil), "example.com/copy",
			v.encrypt(transitKey("app"), 2, ciphertext.Namespace.Context("shop", "", ""), nil)),
			want: Found{Annotation: "example.com/copy"}},
		"base64":      {secret: own(encode(old))},
		"not derived": {secret: own(v.encrypt(transitKey("plain"), 1, nil, nil)), key: transitKey("plain")},
		"scope namespace": {secret: newSecret("shop", "x", map[string]string{"y": v.encrypt(transitKey("app"), 2,
			ciphertext.Namespace.Context("shop", "", ""), nil)}), want: Found{Secret: "x", Entry: "y"}},
		"scope cluster": {secret: newSecret("ops", "x", map[string]string{"y": v.encrypt(transitKey("app"), 2,
			ciphertext.Cluster.Context("", "", ""), nil)}), want: Found{Namespace: "ops", Secret: "x", Entry: "y"}},
		"manifest of the namespace": {
			secret: newSecret("shop", "x", map[string]string{"y": manifestOf("", "db", "password", old)}),
			want:   Found{Secret: "x", Entry: "y"}},
		"manifest of another namespace": {
			secret: newSecret("ops", "x", map[string]string{"y": encode(manifestOf("shop", "db", "password", old))}),
			want:   Found{Namespace: "ops", Secret: "x", Entry: "y"}},
		"Helm": {secret: helmSecret("shop", "web", 3, "deployed", "---\nkind: ConfigMap\n---\n"+
			manifestOf("", "db", "password", old)),
			want: Found{Secret: "sh.helm.release.v1.web.v3", Entry: "release", InRelease: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := scan(t, &Scanner{Vault: v, Keys: v.retiring(nil)}, test.secret)
			key, want := transitKey("app"), test.want
			if test.key != (ciphertext.Key{}) {
				key = test.key
			}
			want.Key, want.Version = key, 2
			if key.Name == "plain" {
				want.Version = 1
			}
			if want.Namespace == "" {
				want.Namespace = "shop"
			}
			if want.Secret == "" {
				want.Secret = "db"
			}
			if want.Entry == "" && want.Annotation == "" {
				want.Entry = "password"
			}
			if got := r.InUse[key]; got.Count != 1 || got.Items[0] != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			for _, k := range v.keys {
				if r.MayRetire(k) == (k == key) {
					t.Errorf("%s may be retired: %t", k, k == key)
				}
			}
			if r.Undecryptable.Count > 0 {
				t.Errorf("undecryptable: %+v", r.Undecryptable)
			}
		})
	}
}

// TestGarbageBlocksNothing has what anyone may write who can create a Secret in one namespace. Each once
// stopped the retirement of every key, or of the one that it names.
func TestGarbageBlocksNothing(t *testing.T) {
	v := newVault("app", "other", "young")
	v.setKey(transitKey("young"), 2, 1, true)
	keys := v.retiring(nil)
	for i, k := range keys {
		if k.Name == "young" {
			keys[i].To = 2
		}
	}
	random := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("garbage.", 8)))
	garbage := map[string]string{"v1": "vault:v1:" + random, "v999999": "vault:v999999:" + random,
		"short": "vault:v1:garbage", "not": "garbage", "v4": "vault:v4:" + random}
	hostile := func(name string) *corev1.Secret { return newSecret("mallory", name, garbage) }
	untyped := hostile("a")
	untyped.Type = ciphertext.Type
	secrets := []*corev1.Secret{untyped,
		annotate(labeled(hostile("b"), "app"), ciphertext.AnnotationTransitMount, "/../"),
		annotate(labeled(hostile("c"), "app"), ciphertext.AnnotationScope, "bad"),
		annotate(labeled(hostile("d"), "app"), ciphertext.AnnotationRewrapped, "999999"),
		annotate(labeled(hostile("e"), "app"), ciphertext.AnnotationScope, "none"),
		labeled(hostile("f"), "app"), labeled(hostile("young"), "young"), // which has no version 4
		labeled(newSecret("mallory", "g", map[string]string{"copied": v.strict("app", 2, "shop", "db", "password")}), "app"),
		annotate(hostile("h"), ciphertext.AnnotationLastApplied, lastApplied("", "x/y", "../z", "vault:v1:"+random)),
		helmSecret("mallory", "long", 1, "deployed", "vault:v1:"+strings.Repeat("A", 2<<20)),
	}
	r := scan(t, &Scanner{Vault: v, Keys: keys}, secrets...)
	for _, k := range keys {
		if !r.MayRetire(k.Key) {
			t.Errorf("%s is blocked: %+v", k.Key, r)
		}
	}
	if r.MayRetire(transitKey("unknown")) {
		t.Error("a key that was not tried may be retired")
	}
	if r.Undecryptable.Count < 2*8+2 {
		t.Errorf("undecryptable: %+v", r.Undecryptable)
	}
	if r.Verified[transitKey("app")] != 0 {
		t.Errorf("verified: %v", r.Verified)
	}
}

// TestOlderReleases checks which revisions of a Helm release block. The text is in revision 5.
func TestOlderReleases(t *testing.T) {
	v := newVault("app")
	old := v.strict("app", 2, "shop", "db", "password")
	for name, test := range map[string]struct {
		others map[int]string // the other revisions
		status string
		change func(*corev1.Secret)
		blocks bool
	}{
		"deployed":                  {status: "deployed", others: map[int]string{4: "superseded"}, blocks: true},
		"the one before":            {others: map[int]string{6: "deployed"}, blocks: true},
		"older":                     {others: map[int]string{6: "superseded", 7: "deployed"}},
		"older, sorted differently": {others: map[int]string{10: "superseded", 11: "deployed"}},
		"before failed ones":        {others: map[int]string{6: "failed", 7: "deployed"}, blocks: true},
		"none is deployed":          {others: map[int]string{6: "superseded", 7: "superseded"}, blocks: true},
		"newer than deployed": {status: "pending-upgrade", others: map[int]string{3: "superseded", 4: "deployed"},
			blocks: true},
		"only it":         {blocks: true},
		"another release": {blocks: true, others: map[int]string{-6: "superseded", -7: "deployed"}},
		"labels of another revision": {blocks: true, others: map[int]string{6: "superseded", 7: "deployed"},
			change: func(s *corev1.Secret) { s.Labels["version"] = "1" }},
		"labels of another release": {blocks: true, others: map[int]string{6: "superseded", 7: "deployed"},
			change: func(s *corev1.Secret) { s.Labels["name"] = "x" }},
		"not Helm's": {blocks: true, others: map[int]string{6: "superseded", 7: "deployed"},
			change: func(s *corev1.Secret) { delete(s.Labels, "owner") }},
		"outside of the release": {blocks: true, others: map[int]string{6: "superseded", 7: "deployed"},
			change: func(s *corev1.Secret) { s.Data = map[string][]byte{"x": []byte(manifestOf("", "db", "password", old))} }},
	} {
		t.Run(name, func(t *testing.T) {
			if test.status == "" {
				test.status = "superseded"
			}
			with := helmSecret("shop", "web", 5, test.status, manifestOf("", "db", "password", old))
			if test.change != nil {
				test.change(with)
			}
			secrets := []*corev1.Secret{with}
			for n, status := range test.others {
				release := "web"
				if n < 0 {
					n, release = -n, "other"
				}
				secrets = append(secrets, helmSecret("shop", release, n, status, "kind: ConfigMap\n"))
			}
			// The next namespace has a release of the same name.
			secrets = append(secrets, helmSecret("x", "web", 8, "superseded", ""), helmSecret("x", "web", 9, "deployed", ""))
			r := scan(t, &Scanner{Vault: v, Keys: v.retiring(nil)}, secrets...)
			if r.MayRetire(transitKey("app")) == test.blocks || r.OlderReleases.Count == 1 == test.blocks {
				t.Errorf("blocks: %t, want %t: %+v", !r.MayRetire(transitKey("app")), test.blocks, r)
			}
		})
	}
}

func TestNotSearched(t *testing.T) {
	v := newVault("app", "shop", "ops")
	damaged := helmSecret("shop", "web", 1, "deployed", strings.Repeat("x", 100))
	damaged.Data["release"] = damaged.Data["release"][:60]
	r := scan(t, &Scanner{Vault: v, Keys: v.retiring(map[string][]string{"shop": {"shop"}, "ops": {"ops"}})}, damaged)
	if len(r.NotSearched) != 1 || !strings.Contains(r.NotSearched[0].Reason, "damaged") ||
		r.NotSearched[0].Secret != damaged.Name {
		t.Errorf("not searched: %+v", r.NotSearched)
	}
	for name, want := range map[string]bool{"app": false, "shop": false, "ops": true} {
		if got := r.MayRetire(transitKey(name)); got != want {
			t.Errorf("%s may be retired: %t", name, got)
		}
	}
}

// TestVerified counts the entries that decrypt as their Secrets say.
func TestVerified(t *testing.T) {
	v := newVault("app")
	r := scan(t, &Scanner{Vault: v, Keys: v.retiring(nil)},
		labeled(newSecret("shop", "db", map[string]string{
			"old": v.strict("app", 2, "shop", "db", "old"), "new": v.strict("app", 9, "shop", "db", "new"),
			"moved": v.strict("app", 9, "shop", "db", "new"), "plain": "x",
		}), "app"),
		annotate(labeled(newSecret("shop", "scoped", map[string]string{"x": v.encrypt(transitKey("app"), 9,
			ciphertext.Cluster.Context("", "", ""), nil)}), "app"), ciphertext.AnnotationScope, "cluster"),
		newSecret("shop", "unlabeled", map[string]string{"x": v.strict("app", 9, "shop", "unlabeled", "x")}),
		annotate(labeled(newSecret("shop", "wrong", map[string]string{"x": v.strict("app", 9, "shop", "wrong", "x")}), "app"),
			ciphertext.AnnotationScope, "cluster"))
	if got := r.Verified[transitKey("app")]; got != 3 {
		t.Errorf("%d entries are verified, want 3", got)
	}
	// One attempt at the old text; what its key keeps is not tried with others.
	if r.Undecryptable.Count != 0 || r.Attempts > 3 {
		t.Errorf("%d undecryptable, %d attempts", r.Undecryptable.Count, r.Attempts)
	}
}

// TestTriedOnce has many copies of texts: each is tried once at each location, and every copy is found.
func TestTriedOnce(t *testing.T) {
	v := newVault("app")
	good := v.encrypt(transitKey("app"), 2, ciphertext.Cluster.Context("", "", ""), nil)
	random := "vault:v1:" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("garbage.", 8)))
	var secrets []*corev1.Secret
	for i := range 500 {
		secrets = append(secrets, annotate(newSecret(fmt.Sprintf("ns%d", i/100), fmt.Sprintf("s%03d", i),
			map[string]string{"a": good, "b": good, "c": random + " " + random}),
			ciphertext.AnnotationLastApplied, lastApplied("", fmt.Sprintf("s%03d", i), "a", good)))
	}
	r := scan(t, &Scanner{Vault: v, Keys: v.retiring(nil)}, secrets...)
	if got := r.InUse[transitKey("app")]; got.Count != 1500 || len(got.Items) != maxItems {
		t.Errorf("%d found, %d named", got.Count, len(got.Items))
	}
	if r.Undecryptable.Count != 500 {
		t.Errorf("%d undecryptable", r.Undecryptable.Count)
	}
	// Strict: three entries, and twice the annotation's location of another entry. Namespace: once each
	// of two texts in five namespaces. Cluster: once each of two texts.
	if want := 500*(2+1+1) + 5*2 + 2; r.Attempts > want {
		t.Errorf("%d attempts, want at most %d", r.Attempts, want)
	}
	if r.Attempts != v.items {
		t.Errorf("%d attempts are reported, and %d items were sent", r.Attempts, v.items)
	}
}

// TestReleased has a text in two Secrets. Only that of the Secret that is released blocks nothing.
func TestReleased(t *testing.T) {
	v := newVault("app")
	text := v.encrypt(transitKey("app"), 2, ciphertext.Namespace.Context("shop", "", ""), nil)
	for name, blocks := range map[string]bool{"b": false, "c": true} {
		s := &Scanner{Vault: v, Keys: v.retiring(nil), Released: func(namespace, name string) bool {
			return namespace == "shop" && name == "b"
		}}
		r := scan(t, s, newSecret("shop", "b", map[string]string{"x": text}),
			newSecret("shop", name, map[string]string{"y": text}))
		if r.MayRetire(transitKey("app")) == blocks || r.Released.Count == 2 == blocks {
			t.Errorf("%s: blocks: %t: %+v", name, !r.MayRetire(transitKey("app")), r)
		}
	}
}
