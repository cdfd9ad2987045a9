package provider

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// cached turns the republish cache on.
func cached(c *Config) { c.RepublishCacheBytes = DefaultRepublishCacheBytes }

func TestRepublish(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e.vault)
	s := serve(t, c.address, cached)
	entries := map[string]string{"a": e.encrypt(t, ciphertext.Strict, "matrix", "a", "one"),
		"b": e.encrypt(t, ciphertext.Strict, "matrix", "b", "two")}
	mount := func(params, entries map[string]string) *v1alpha1.MountResponse {
		t.Helper()
		resp, err := s.Mount(t.Context(), mountRequest(params, entries))
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	first := mount(e.params(), entries)
	for range 3 {
		again := mount(e.params(), entries)
		if !proto.Equal(first, again) {
			t.Errorf("another answer: %v, before: %v", again, first)
		}
	}
	c.want(t, "the same four times", 1, 1)
	log := s.log.String()
	line := e.logNames() + " ciphertext=kubelet source=%s entries=2 duration="
	wantTexts(t, log, fmt.Sprintf(line, "vault"), fmt.Sprintf(line, "cache"))
	if strings.Count(log, "level=INFO msg=mounted") != 1 || strings.Count(log, "level=DEBUG msg=mounted") != 3 {
		t.Errorf("the log:\n%s", log)
	}

	// A new value, and back.
	changed := merged(entries, "a", e.encrypt(t, ciphertext.Strict, "matrix", "a", "three"))
	if got := filesOf(mount(e.params(), changed)); got["a"].Content != "three" || got["b"].Content != "two" {
		t.Errorf("files after a change: %v", got)
	}
	c.want(t, "a change", 1, 2)
	mount(e.params(), changed)
	c.want(t, "the change again", 1, 2)
	if !proto.Equal(first, mount(e.params(), entries)) {
		t.Error("another answer to what it was before")
	}
	c.want(t, "back", 1, 3)

	// A token that the kubelet has renewed.
	renewed := e.params(class.AttributeTokens, e.vaultToken(e.namespace, "app", "vault"))
	if !proto.Equal(first, mount(renewed, entries)) {
		t.Error("another answer to another token")
	}
	c.want(t, "a new token", 2, 4)
	mount(renewed, entries)
	c.want(t, "the new token again", 2, 4)
	mount(e.params(), entries)
	c.want(t, "the old token again", 2, 5)

	// Another volume of the pod, and another pod.
	request := mountRequest(e.params(), entries)
	request.TargetPath += "-2"
	if _, err := s.Mount(t.Context(), request); err != nil {
		t.Error(err)
	}
	c.want(t, "another volume", 2, 6)
	mount(e.params(class.AttributePodName, "app-1", class.AttributePodUID, "uid-1"), entries)
	c.want(t, "another pod", 3, 7)
	mount(e.params(), entries)
	c.want(t, "the first all the while", 3, 7)

	// An entry that was not asked for may change.
	one := e.params("objects", "- {objectName: b}", class.AttributePodUID, "uid-2")
	mount(one, entries)
	mount(one, changed)
	c.want(t, "a change elsewhere", 4, 8)
}

// TestRepublishOff: without the cache each mount goes to Vault, as it is by a
// Config that says nothing.
func TestRepublishOff(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e.vault)
	s := serve(t, c.address)
	entries := e.entries(t, "v")
	for range 3 {
		s.mountOne(t, e.params(), entries, "v")
	}
	c.want(t, "three mounts", 1, 3)
	if n := strings.Count(s.log.String(), "level=INFO msg=mounted"); n != 3 {
		t.Errorf("%d lines in the log", n)
	}
	if _, err := New(Config{Vault: s.provider.config.Vault, VersionKey: make([]byte, versionKeySize),
		RepublishCacheBytes: -1}); err == nil {
		t.Error("a negative size is taken")
	}
}

// TestRepublishOfOtherInputs: with anything else than before, Vault is asked. Its
// refusal is the answer then, and what was there is forgotten.
func TestRepublishOfOtherInputs(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e.vault)
	direct := e.vault.Address
	s := serve(t, c.address, cached, func(c *Config) { c.AllowedAddresses = []string{direct} })
	entries := e.entries(t, "v")
	for name, change := range map[string][]string{
		"role":                {"roleName", "nobody"},
		"Secret":              {"secretName", "other"},
		"key":                 {"transitKey", "other"},
		"mount":               {"transitMount", "other"},
		"scope":               {"scope", "namespace"},
		"auth mount":          {"vaultAuthMountPath", "kubernetes"},
		"audience":            {"audience", "team", class.AttributeTokens, e.vaultToken(e.namespace, "app", "team")},
		"service account":     {class.AttributeAccount, "other"},
		"namespace":           {class.AttributePodNamespace, "other"},
		"field of the object": {"objects", "- {objectName: x, field: f}"},
	} {
		t.Run(name, func(t *testing.T) {
			s.mountOne(t, e.params(), entries, "v")
			s.mountOne(t, e.params(), entries, "v")
			resp, err := s.Mount(t.Context(), mountRequest(e.params(change...), entries))
			if err == nil {
				t.Fatalf("files %v", filesOf(resp))
			}
			if got := s.provider.responses.String(); got != "0 responses, 0 bytes" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
	s.mountOne(t, e.params(), entries, "v")
	before := c.decrypts
	resp, err := s.Mount(t.Context(), mountRequest(e.params("objects", "- {objectName: y/z, secretKey: x}"), entries))
	if diff := cmp.Diff(map[string]file{"y/z": {0o644, "v"}}, filesOf(resp)); err != nil || diff != "" {
		t.Errorf("other objects: %v\n%s", err, diff)
	}
	if _, err := s.Mount(t.Context(), mountRequest(e.params("vaultAddress", direct), entries)); err != nil {
		t.Error(err)
	}
	if c.decrypts != before+1 {
		t.Errorf("%d decrypts for other objects and another address", c.decrypts-before)
	}
}

// TestRepublishInputs: nothing of what makes an answer is left out of the
// comparison, and neither is the token that logs in; tokens for others are.
func TestRepublishInputs(t *testing.T) {
	c := newRepublishCache(1 << 20)
	params := map[string]string{class.AttributePodUID: "uid", class.AttributePodNamespace: "demo", "roleName": "r",
		"secretName": "s", "transitKey": "k"}
	jwt := ownToken{text: "a.b.c"}
	of := func(params map[string]string, target string, data map[string][]byte, entries ...string) mountKey {
		t.Helper()
		in := mountRequest(merged(params, class.AttributeTokens,
			tokensJSON(map[string]token{"": {Token: time.Now().String()}})), nil)
		in.TargetPath = target
		r, failed := plainProvider(t).parse(in)
		if failed != nil {
			t.Fatal(failed)
		}
		m, ok := c.key(r, jwt, data, entries)
		if !ok {
			t.Fatal("not kept")
		}
		return m
	}
	data := map[string][]byte{"ab": []byte("1"), "a": []byte("b1"), "c": nil}
	base := of(params, "/t", data, "ab")
	if again := of(params, "/t", data, "ab"); again != base {
		t.Error("another token for the API server makes another mount")
	}
	jwt.text = "a.b.d"
	if other := of(params, "/t", data, "ab"); other.inputs == base.inputs || other.volume != base.volume {
		t.Error("another token for Vault is the same mount, or of another volume")
	}
	jwt.text = "a.b.c"
	other := map[string]mountKey{
		"text":                  of(params, "/t", map[string][]byte{"ab": []byte("2")}, "ab"),
		"entry":                 of(params, "/t", data, "a"), // of which the bytes are the same as those of ab
		"entry more":            of(params, "/t", data, "ab", "c"),
		"pod uid":               of(merged(params, class.AttributePodUID, "uid-2"), "/t", data, "ab"),
		"pod name":              of(merged(params, class.AttributePodName, "p"), "/t", data, "ab"),
		"target":                of(params, "/u", data, "ab"),
		"class":                 of(merged(params, class.AttributeClass, "c"), "/t", data, "ab"),
		"kubelet's own to come": of(merged(params, class.KubeletPrefix+"new", "x"), "/t", data, "ab"),
	}
	address := plainProvider(t).config.Vault.Address
	for _, name := range class.Parameters() {
		value := map[string]string{"scope": "cluster", "objects": "- {objectName: ab}", "vaultAddress": address}[name]
		if value == "" {
			value = "other"
		}
		other[name] = of(merged(params, name, value), "/t", data, "ab")
	}
	for name, m := range other {
		if m == base {
			t.Errorf("another %s is the same mount", name)
		}
		if sameVolume := m.volume == base.volume; sameVolume == (name == "target" || name == "pod uid") {
			t.Errorf("another %s: the same volume: %v", name, sameVolume)
		}
	}
	if n := len(other); n != 8+len(class.Parameters()) {
		t.Errorf("%d cases", n)
	}
	c = newRepublishCache(1 << 20) // as in another process
	if of(params, "/t", data, "ab") == base {
		t.Error("another process has the same hashes")
	}
	for _, r := range []*request{{target: "/t"}, {pod: pod{uid: "u"}}} {
		if _, ok := c.key(r, jwt, nil, nil); ok {
			t.Errorf("%+v is kept", r.pod)
		}
	}
	if _, ok := (*republishCache)(nil).key(&request{target: "/t", pod: pod{uid: "u"}}, jwt, nil, nil); ok {
		t.Error("kept by a cache that is off")
	}
}

// TestTheSameRequest: a request is known to the last byte, and has its answer
// again without being read, for as long as it is what its volume had last.
func TestTheSameRequest(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e.vault)
	s := serve(t, c.address, cached, within(5*time.Second))
	cache := s.provider.responses
	now := clock.Now()
	cache.now = func() clock.Reading { return now }
	entries := e.entries(t, "one")
	known := func(in *v1alpha1.MountRequest) bool {
		given := cache.getExact(cache.requestDigest(in))
		if given != nil && given.entries != 1 {
			t.Errorf("made of %d entries", given.entries)
		}
		return given != nil
	}
	mount := func(in *v1alpha1.MountRequest, want string) {
		t.Helper()
		resp, err := s.Mount(t.Context(), in)
		if diff := cmp.Diff(map[string]file{"x": {0o644, want}}, filesOf(resp)); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	first := mountRequest(e.params(), entries)
	if known(first) {
		t.Error("known before it came")
	}
	mount(first, "one")
	if !known(first) {
		t.Fatal("not known")
	}
	for name, change := range map[string]func(*v1alpha1.MountRequest){
		"attributes": func(in *v1alpha1.MountRequest) { in.Attributes += " " },
		"secrets":    func(in *v1alpha1.MountRequest) { in.Secrets += " " },
		"target":     func(in *v1alpha1.MountRequest) { in.TargetPath += "2" },
		"where one ends": func(in *v1alpha1.MountRequest) {
			in.Attributes, in.Secrets = in.Attributes+in.Secrets[:1], in.Secrets[1:]
		},
	} {
		other := mountRequest(e.params(), entries)
		other.Attributes = first.Attributes // which has the time in its token
		change(other)
		if known(other) {
			t.Errorf("another one by its %s is known", name)
		}
	}
	mount(first, "one")
	wantTexts(t, s.log.String(), "level=DEBUG msg=mounted request=",
		e.logNames()+" ciphertext=kubelet source=cache entries=1 duration=")

	renewed := mountRequest(e.params(class.AttributeTokens, e.params()[class.AttributeTokens]+" "), entries)
	mount(renewed, "one")
	if !known(renewed) || known(first) || len(cache.byRequest) != 1 {
		t.Errorf("after another token has changed: %v, before %v, %d", known(renewed), known(first), len(cache.byRequest))
	}
	c.want(t, "one answer for all", 1, 1)

	changed := mountRequest(e.params(), e.entries(t, "two"))
	mount(changed, "two")
	if known(renewed) || !known(changed) {
		t.Error("an earlier value is still given")
	}
	mount(renewed, "one")
	c.want(t, "and back", 1, 3)

	now = now.Add(republishIdle)
	if known(renewed) || len(cache.byRequest) != 0 {
		t.Error("given after it had been unused for long")
	}
	mount(renewed, "one")
	for range int(republishLife / time.Minute) {
		now = now.Add(time.Minute)
		known(renewed)
	}
	if known(renewed) || len(cache.byRequest) != 0 {
		t.Error("given for ever")
	}

	// Not beyond the end of the token either.
	now = clock.Now()
	short := mountRequest(e.params(class.AttributeTokens, tokensJSON(map[string]token{
		"vault": {issuer().PodToken(e.namespace, "app-0", "uid-0", "app", "vault", 5*time.Minute), time.Time{}},
	})), entries)
	mount(short, "one")
	for range 4 {
		now = now.Add(time.Minute)
		if !known(short) {
			t.Error("forgotten while the token lasts")
		}
	}
	now = now.Add(time.Minute)
	if known(short) || len(cache.byRequest) != 0 {
		t.Error("given after the end of the token")
	}
}

// TestRepublishAsPod: the Secret is read each time, with the pod's own right to
// it; Vault is asked when it has changed.
func TestRepublishAsPod(t *testing.T) {
	kube := testenv.SharedAPIServer(t)
	e := newEnv(t)
	kube.CreateServiceAccount(t, e.namespace, "app")
	create(t, kube, "/api/v1/namespaces/"+e.namespace+"/secrets", corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "matrix"}, Type: ciphertext.Type,
		Data: map[string][]byte{"x": []byte(e.encrypt(t, ciphertext.Strict, "matrix", "x", "one"))},
	})
	allowGet(t, kube, e.namespace, "matrix")
	params := e.params(e.asPod(t, kube)...)
	c := counting(t, e.vault)
	s := serve(t, c.address, cached, withAPIServer(t, kube.Kubeconfig))
	admin, err := rest.HTTPClientFor(kube.Config)
	if err != nil {
		t.Fatal(err)
	}
	do := func(method, path, body string) {
		t.Helper()
		req, err := http.NewRequest(method, kube.Address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/merge-patch+json")
		resp, err := admin.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, _ := io.ReadAll(resp.Body); resp.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, path, text)
		}
	}
	s.mountOne(t, params, nil, "one")
	s.mountOne(t, params, nil, "one")
	c.want(t, "twice", 1, 1)
	wantTexts(t, s.log.String(), "ciphertext=api-server source=cache")
	if in := mountRequest(params, nil); s.provider.responses.requestDigest(in) == (digest{}) ||
		len(s.provider.responses.byRequest) != 0 {
		t.Error("a request that does not have the ciphertext is taken for all there is to know")
	}
	secret := "/api/v1/namespaces/" + e.namespace + "/secrets/matrix"
	do("PATCH", secret,
		toJSON(corev1.Secret{Data: map[string][]byte{"x": []byte(e.encrypt(t, ciphertext.Strict, "matrix", "x", "two"))}}))
	s.mountOne(t, params, nil, "two")
	c.want(t, "after a change", 1, 2)
	do("DELETE", secret, "")
	_, err = s.Mount(t.Context(), mountRequest(params, nil))
	wantError(t, err, failure.SecretNotFound, "Secret "+e.namespace+"/matrix")
}

// TestRepublishAfterFailures: whatever goes wrong on the way leaves nothing
// behind, neither of that mount nor of an earlier one.
func TestRepublishAfterFailures(t *testing.T) {
	e := newEnv(t)
	var fault atomic.Pointer[http.HandlerFunc]
	address := faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
		f := fault.Load()
		if f == nil || !isDecrypt(r) {
			return false
		}
		(*f)(w, r)
		return true
	})
	s := serve(t, address, cached, within(time.Second))
	entries, changed := e.entries(t, "one"), e.entries(t, "two")
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); io.WriteString(w, body) }
	}
	for name, f := range map[string]http.HandlerFunc{
		"denied":      answer(403, `{"errors": ["permission denied"]}`),
		"one is bad":  answer(400, `{"data": {"batch_results": [{"error": "cipher: message authentication failed"}]}}`),
		"not Vault":   answer(200, "<html>"),
		"unavailable": answer(503, `{"errors": ["Vault is sealed"]}`),
		"held":        func(_ http.ResponseWriter, r *http.Request) { hold(r) },
	} {
		t.Run(name, func(t *testing.T) {
			fault.Store(nil)
			s.mountOne(t, e.params(), entries, "one")
			fault.Store(&f)
			if resp, err := s.Mount(t.Context(), mountRequest(e.params(), changed)); err == nil {
				t.Errorf("files %v", filesOf(resp))
			}
			if got := s.provider.responses.String(); got != "0 responses, 0 bytes" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
	t.Run("a panic", func(t *testing.T) {
		fault.Store(nil)
		s.mountOne(t, e.params(), entries, "one")
		setClock := func(now func() clock.Reading) {
			s.provider.logins.mu.Lock()
			defer s.provider.logins.mu.Unlock()
			s.provider.logins.now = now
		}
		setClock(func() clock.Reading { panic("here") })
		_, err := s.Mount(t.Context(), mountRequest(e.params(), changed))
		wantError(t, err, failure.Internal, "bug in the provider")
		setClock(nil)
		if got := s.provider.responses.String(); got != "0 responses, 0 bytes" {
			t.Errorf("left behind: %s", got)
		}
		s.mountOne(t, e.params(), changed, "two")
	})
	t.Run("Vault is away", func(t *testing.T) {
		s.mountOne(t, e.params(), changed, "two")
		f := answer(503, `{"errors": ["Vault is sealed"]}`)
		fault.Store(&f)
		s.mountOne(t, e.params(), changed, "two")
	})
}

// answerOf is an answer that a volume may have.
func answerOf(content string) *v1alpha1.MountResponse {
	return &v1alpha1.MountResponse{
		Files:         []*v1alpha1.File{{Path: "x", Mode: 0o400, Contents: []byte(content)}},
		ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "x", Version: "v"}},
	}
}

func keyOf(volume, inputs int) (m mountKey) {
	m.expires = time.Now().Add(1000 * time.Hour)
	m.volume[0], m.volume[1], m.inputs[0] = byte(volume), byte(volume>>8), byte(inputs)
	return m
}

// TestRepublishedAnswersAreCopies: what is done to an answer, before or after,
// does not come back.
func TestRepublishedAnswersAreCopies(t *testing.T) {
	c := newRepublishCache(1 << 20)
	given := answerOf("content")
	c.put(keyOf(1, 1), given)
	for range 2 {
		copy(given.Files[0].Contents, "CHANGED")
		given.Files = given.Files[:0]
		if given = c.get(keyOf(1, 1)).MountResponse; !proto.Equal(given, answerOf("content")) {
			t.Fatalf("given again: %v", given)
		}
	}
	c.put(keyOf(2, 1), &v1alpha1.MountResponse{ObjectVersion: given.ObjectVersion})
	if c.get(keyOf(2, 1)) != nil {
		t.Error("an answer without files is given")
	}
}

func TestRepublishedGrowOld(t *testing.T) {
	for _, test := range []struct {
		name string
		step func(*clock.Reading)
		n    int // how often it is still there
	}{
		{"asked for every minute", func(r *clock.Reading) { *r = r.Add(time.Minute) }, 60},
		{"asked for every 9 minutes", func(r *clock.Reading) { *r = r.Add(9 * time.Minute) }, 6},
		{"not asked for", func(r *clock.Reading) { *r = r.Add(republishIdle) }, 0},
		{"the machine was suspended", func(r *clock.Reading) { r.Wall = r.Wall.Add(time.Hour) }, 0},
		{"the clock was set back", func(r *clock.Reading) { *r = r.Add(time.Minute); r.Wall = r.Wall.Add(-time.Hour) }, 60},
	} {
		t.Run(test.name, func(t *testing.T) {
			ends := map[int]bool{}
			for range 50 {
				c := newRepublishCache(1 << 20)
				now := clock.Now()
				c.now = func() clock.Reading { return now }
				c.put(keyOf(1, 1), answerOf("x"))
				n := 0
				for test.step(&now); n < 1000 && c.get(keyOf(1, 1)) != nil; test.step(&now) {
					n++
				}
				ends[n] = true
				if n > test.n || n < test.n*3/4-1 {
					t.Fatalf("it was there for %d times, of at most %d", n, test.n)
				}
				if c.bytes != 0 || c.order.Len() != 0 || len(c.byVolume) != 0 {
					t.Fatalf("left behind: %d bytes, %s", c.bytes, c)
				}
			}
			if test.n == 60 && len(ends) < 3 {
				t.Errorf("all end together: %v", ends)
			}
		})
	}
}

// TestRepublishedAreSweptUp: also when no mount comes any more, and without a
// goroutine that stays (synctest would not return).
func TestRepublishedAreSweptUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newRepublishCache(1 << 20)
		for round := range 2 {
			c.put(keyOf(1, 1), answerOf("x"))
			time.Sleep(5 * time.Minute)
			c.put(keyOf(2, 1), answerOf("x"))
			time.Sleep(6*time.Minute + time.Second)
			if got := c.String(); !strings.HasPrefix(got, "1 responses") {
				t.Errorf("round %d: %s after 11 minutes", round, got)
			}
			time.Sleep(6 * time.Minute)
			if got := c.String(); got != "0 responses, 0 bytes" {
				t.Errorf("round %d: %s after 17 minutes", round, got)
			}
			time.Sleep(24 * time.Hour)
			c.mu.Lock()
			if c.timer != nil {
				t.Error("a timer goes on with nothing to do")
			}
			c.mu.Unlock()
		}
	})
}

func TestRepublishedAreBounded(t *testing.T) {
	const limit = 100 << 10
	c := newRepublishCache(limit)
	content := strings.Repeat("x", 9<<10)
	for i := range 50 {
		c.put(keyOf(i, 1), answerOf(content))
		if c.get(keyOf(0, 1)) == nil {
			t.Fatalf("the one in use went with the %dth", i)
		}
		if c.bytes > limit || c.bytes < min(int64(i), 8)*9<<10 {
			t.Fatalf("%s", c)
		}
	}
	if c.get(keyOf(49, 1)) == nil || c.get(keyOf(1, 1)) != nil {
		t.Error("not the ones used longest ago went")
	}
	before := c.String()
	c.put(keyOf(50, 1), answerOf(strings.Repeat("x", limit)))
	if got := c.String(); got != before {
		t.Errorf("one that has no room made some: %s, before: %s", got, before)
	}
	c.put(keyOf(0, 2), answerOf(strings.Repeat("x", limit)))
	if c.get(keyOf(0, 1)) != nil || c.get(keyOf(0, 2)) != nil {
		t.Error("an old answer stays where the new one has no room")
	}
	for i := range 60 {
		c.get(keyOf(i, 3))
	}
	if got := c.String(); got != "0 responses, 0 bytes" {
		t.Errorf("after all have other inputs: %s", got)
	}
}

// TestRepublishedMemory: the bound is one of real memory, whatever the size of
// answers.
func TestRepublishedMemory(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const limit = 8 << 20
	for _, size := range []int{1, 33, 1025, 9 << 10, 70 << 10, 1<<20 + 1} {
		before := heap()
		c := newRepublishCache(limit)
		content := strings.Repeat("x", size)
		for i := range 40000 {
			if int64(i)*int64(size) > 4*limit {
				break
			}
			c.put(keyOf(i, 1), answerOf(content))
		}
		if used := heap() - before; used > limit+limit/20 || c.bytes > limit || c.bytes < limit*3/4 {
			t.Errorf("answers of %d: %s, and really %d", size, c, used)
		}
		runtime.KeepAlive(c)
	}
}

// TestRepublishTogether is for the race detector.
func TestRepublishTogether(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.vault.Address, cached, func(c *Config) { c.RepublishCacheBytes = 4 << 10 })
	var wait sync.WaitGroup
	for i := range 4 {
		value := fmt.Sprint("value ", i)
		entries := e.entries(t, value)
		for pod := range 4 {
			wait.Go(func() {
				for range 8 {
					s.mountOne(t, e.params(class.AttributePodUID, fmt.Sprint(pod)), entries, value)
				}
			})
		}
	}
	wait.Wait()
}

// BenchmarkRepublish is a mount that is answered from memory, without gRPC.
func BenchmarkRepublish(b *testing.B) {
	e := newEnv(b)
	s := serve(b, e.vault.Address, cached, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
	for _, n := range []int{1, 20} {
		b.Run(fmt.Sprint(n, " entries"), func(b *testing.B) {
			entries := map[string]string{}
			for i := range n {
				name := fmt.Sprint("x", i)
				entries[name] = e.encrypt(b, ciphertext.Strict, "matrix", name, strings.Repeat("v", 1000))
			}
			in := mountRequest(e.params(), entries)
			for b.Loop() {
				if _, err := s.provider.Mount(context.Background(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
