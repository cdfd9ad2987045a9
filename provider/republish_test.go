package provider

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/clock"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// cached enables the republish cache.
func cached(c *Config) { c.RepublishCacheBytes = DefaultRepublishCacheBytes }

func TestRepublish(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e)
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
			t.Errorf("got another response: %v, before: %v", again, first)
		}
	}
	c.want(t, "the same four times", 1, 1)
	log := s.log.String()
	line := e.logNames() + " ciphertext=kubelet source=%s entries=2 duration="
	wantTexts(t, log, fmt.Sprintf(line, "vault"), fmt.Sprintf(line, "cache"))
	if strings.Count(log, "level=INFO msg=mounted") != 1 || strings.Count(log, "level=DEBUG msg=mounted") != 3 {
		t.Errorf("the log:\n%s", log)
	}

	// Change a value, then restore it.
	changed := merged(entries, "a", e.encrypt(t, ciphertext.Strict, "matrix", "a", "three"))
	if got := filesOf(mount(e.params(), changed)); got["a"].Content != "three" || got["b"].Content != "two" {
		t.Errorf("files after a change: %v", got)
	}
	c.want(t, "a change", 1, 2)
	mount(e.params(), changed)
	c.want(t, "the change again", 1, 2)
	if !proto.Equal(first, mount(e.params(), entries)) {
		t.Error("got another response to the original request")
	}
	c.want(t, "back", 1, 3)

	// The kubelet renewed the token.
	renewed := e.params(class.AttributeTokens, e.vaultToken(e.namespace, "app", "vault"))
	if !proto.Equal(first, mount(renewed, entries)) {
		t.Error("got another response for another token")
	}
	c.want(t, "a new token", 2, 4)
	mount(renewed, entries)
	c.want(t, "the new token again", 2, 4)
	mount(e.params(), entries)
	c.want(t, "the old token again", 2, 5)

	// A second volume of the pod, and a second pod.
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

	// A change of an entry that the class does not request is a hit.
	one := e.params("objects", "- {objectName: b}", class.AttributePodUID, "uid-2")
	mount(one, entries)
	mount(one, changed)
	c.want(t, "a change elsewhere", 4, 8)
}

// TestRepublishOff verifies that every mount goes to Vault without the cache, which is the default
// of Config.
func TestRepublishOff(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e)
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
		t.Error("a negative size is accepted")
	}
}

// TestRepublishOfOtherInputs verifies that a mount with other inputs goes to Vault. If Vault denies
// it, the mount fails and the cached response is dropped.
func TestRepublishOfOtherInputs(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e)
	direct := e.Vault.Address
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
				t.Errorf("left in the cache: %s", got)
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

// TestIdenticalRequest verifies that a request identical to the last byte gets the cached response
// without being parsed, as long as it is the last request of its volume.
func TestIdenticalRequest(t *testing.T) {
	e := newEnv(t)
	c := counting(t, e)
	s := serve(t, c.address, cached, within(5*time.Second))
	cache := s.provider.responses
	now := clock.Now()
	cache.now = func() clock.Reading { return now }
	entries := e.entries(t, "one")
	known := func(in *v1alpha1.MountRequest) bool {
		given := cache.getExact(cache.requestDigest(in))
		if given != nil && given.entries != 1 {
			t.Errorf("cached response of %d entries", given.entries)
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
		t.Error("a hit before the first mount")
	}
	mount(first, "one")
	if !known(first) {
		t.Fatal("no hit after the mount")
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
		other.Attributes = first.Attributes // the token contains the time
		change(other)
		if known(other) {
			t.Errorf("a request with another %s is a hit", name)
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
		t.Error("the old request is a hit, or the new one is not")
	}
	mount(renewed, "one")
	c.want(t, "and back", 1, 3)

	now = now.Add(republishIdle)
	if known(renewed) || len(cache.byRequest) != 0 {
		t.Error("a hit after republishIdle without use")
	}
	mount(renewed, "one")
	for range int(republishLife / time.Minute) {
		now = now.Add(time.Minute)
		known(renewed)
	}
	if known(renewed) || len(cache.byRequest) != 0 {
		t.Error("a hit after republishLife")
	}

	// A response expires with its token at the latest.
	now = clock.Now()
	short := mountRequest(e.params(class.AttributeTokens, tokensJSON(map[string]token{
		"vault": {fixture.Issuer().PodToken(e.namespace, "app-0", "uid-0", "app", "vault", 5*time.Minute), time.Time{}},
	})), entries)
	mount(short, "one")
	for range 4 {
		now = now.Add(time.Minute)
		if !known(short) {
			t.Error("dropped before the token expires")
		}
	}
	now = now.Add(time.Minute)
	if known(short) || len(cache.byRequest) != 0 {
		t.Error("a hit after the token expired")
	}
}

// TestRepublishAsPod verifies that the Secret is read for each mount, with the permissions of the
// pod, and that only a change of it goes to Vault.
func TestRepublishAsPod(t *testing.T) {
	e := newEnv(t)
	kube := e.withAPIServer()
	kube.CreateSecret(e.ciphertextSecret("x", "one"))
	kube.AllowGet("app", "matrix")
	params := e.params(e.asPod(kube.API)...)
	c := counting(t, e)
	s := serve(t, c.address, cached, readWith(t, kube.API.Kubeconfig))
	secrets := kube.Kube.CoreV1().Secrets(e.namespace)
	s.mountOne(t, params, nil, "one")
	s.mountOne(t, params, nil, "one")
	c.want(t, "twice", 1, 1)
	wantTexts(t, s.log.String(), "ciphertext=api-server source=cache")
	if in := mountRequest(params, nil); s.provider.responses.requestDigest(in) == (digest{}) ||
		len(s.provider.responses.byRequest) != 0 {
		t.Error("a request without the ciphertext is cached by its digest")
	}
	_, err := secrets.Update(t.Context(), e.ciphertextSecret("x", "two"), metav1.UpdateOptions{})
	e.Must(err)
	s.mountOne(t, params, nil, "two")
	c.want(t, "after a change", 1, 2)
	e.Must(secrets.Delete(t.Context(), "matrix", metav1.DeleteOptions{}))
	_, err = s.Mount(t.Context(), mountRequest(params, nil))
	wantError(t, err, failure.SecretNotFound, "Secret "+e.namespace+"/matrix")
}

// TestRepublishAfterFailures verifies that a failed mount leaves nothing in the cache, neither its
// own response nor an earlier one.
func TestRepublishAfterFailures(t *testing.T) {
	e := newEnv(t)
	var fault atomic.Pointer[http.HandlerFunc]
	address := e.faulty(func(w http.ResponseWriter, r *http.Request) bool {
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
				t.Errorf("left in the cache: %s", got)
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
			t.Errorf("left in the cache: %s", got)
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
