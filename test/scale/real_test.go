package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/provider"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/relay"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// requests is a proxy of a real server that counts requests.
type requests struct {
	*httptest.Server
	mu    sync.Mutex
	count map[string]int
}

// counting returns a proxy of a server; kind classifies a request.
func counting(t *testing.T, address string, transport http.RoundTripper, kind func(*http.Request) string) *requests {
	t.Helper()
	proxy, err := relay.New(address, transport)
	if err != nil {
		t.Fatal(err)
	}
	c := &requests{count: map[string]int{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.count[kind(r)]++
		c.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

// take returns the counts since the last call.
func (c *requests) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := c.count
	c.count = map[string]int{}
	return count
}

// realFixture has a Vault and an API server behind counting proxies. Key, role and policy
// have the name of the namespace.
type realFixture struct {
	*fixture.Fixture
	vault, api *requests
	policy     string
}

func newRealFixture(t *testing.T) *realFixture {
	t.Helper()
	f := &realFixture{Fixture: fixture.New(t)}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	f.vault = counting(t, f.Vault.Address, transport, func(r *http.Request) string {
		parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
		if parts[0] == "auth" {
			return parts[len(parts)-1]
		}
		return parts[1] // of transit/decrypt/KEY
	})
	anonymous, err := rest.TransportFor(rest.AnonymousClientConfig(f.API.Config))
	if err != nil {
		t.Fatal(err)
	}
	f.api = counting(t, f.API.Address, anonymous, func(r *http.Request) string {
		parts := strings.Split(r.URL.Path, "/")
		if parts[len(parts)-1] == "secrets" {
			return "list"
		}
		if parts[len(parts)-2] == "secrets" {
			return r.Method
		}
		return parts[len(parts)-1]
	})
	f.policy = f.Policy(fixture.DecryptPolicy)
	// Count the requests of Root.
	f.Root = f.Session(f.vault.URL, f.Vault.RootToken)
	return f
}

// allowLogin lets all service accounts of the namespace log in to Vault with a TokenReview.
// The auth mount is shared, so only one test may call it.
func (f *realFixture) allowLogin() {
	f.T.Helper()
	f.Write("auth/kubernetes/config", map[string]any{
		"kubernetes_host": f.api.URL, "token_reviewer_jwt": f.API.ReviewerToken(f.T), "disable_local_ca_jwt": true,
	})
	err := f.Vault.AllowLogin(f.T.Context(), testenv.Role{Name: f.Namespace, Namespace: f.Namespace, ServiceAccount: "*",
		Policies: []string{f.policy}})
	if err != nil {
		f.T.Fatal(err)
	}
}

// store creates ciphertext Secrets with a number of entries each.
func (f *realFixture) store(secrets, entries int) (stored []*corev1.Secret) {
	f.T.Helper()
	stored = make([]*corev1.Secret, secrets)
	var group errgroup.Group
	group.SetLimit(8)
	for i := range stored {
		group.Go(func() error {
			spec := secretmanager.Spec{Namespace: f.Namespace, Name: fmt.Sprint("secret-", i),
				Settings: ciphertext.Settings{Key: ciphertext.Key{Name: f.Namespace}}, Entries: map[string][]byte{}}
			for j := range entries {
				spec.Entries[fmt.Sprint("entry-", j)] = []byte(plaintext(i))
			}
			s, err := secretmanager.Encrypt(f.T.Context(), f.Root, spec)
			if err != nil {
				return err
			}
			stored[i], err = f.Kube.CoreV1().Secrets(f.Namespace).Create(f.T.Context(), s, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		f.T.Fatal(err)
	}
	return stored
}

// rotate runs the real rotator, which creates a new version and rewraps every Secret.
func (f *realFixture) rotate() {
	f.T.Helper()
	kube := f.Client(func(next http.RoundTripper) http.RoundTripper { return direct{f, next} })
	if _, err := rotator.Run(f.T.Context(), f.Root, kube,
		rotator.Options{Keys: []string{f.Namespace}, Rotate: rotator.Always, Settle: -1, StateNamespace: f.Namespace},
	); err != nil {
		f.T.Fatal(err)
	}
}

// direct counts the requests of an administrator without a proxy, which could not present
// the client certificate.
type direct struct {
	f    *realFixture
	next http.RoundTripper
}

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	kind := r.Method
	if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/secrets") {
		kind = "list"
	}
	if strings.Contains(r.URL.Path, "/configmaps") {
		kind = "state"
	}
	d.f.api.mu.Lock()
	d.f.api.count[kind]++
	d.f.api.mu.Unlock()
	return d.next.RoundTrip(r)
}

// TestRealParts verifies that one node sends the same requests to a real Vault and a real
// API server as in the simulation: when its pods start, when their mounts are repeated,
// after a rotation by the real rotator, and after the kubelet renewed the pods' tokens.
func TestRealParts(t *testing.T) {
	t.Parallel()
	f := newRealFixture(t)
	f.allowLogin()
	c := Large
	stored := f.store(c.Pods*c.Volumes, 1)
	f.API.CreateServiceAccount(t, f.Namespace, account)
	type pod struct{ uid, tokens string }
	pods := make([]pod, c.Pods)
	podName := func(i int) string { return fmt.Sprint("pod-", i) }
	// renew renews the tokens of the pods, as the kubelet does.
	renew := func() {
		for i := range pods {
			all := map[string]any{}
			for _, audience := range []string{"", "vault"} {
				var token string
				token, pods[i].uid = f.API.PodToken(t, f.Namespace, podName(i), account, audience, time.Hour)
				all[audience] = map[string]string{"token": token}
			}
			pods[i].tokens = text(all)
		}
	}
	renew()
	if _, err := f.Kube.RbacV1().Roles(f.Namespace).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Kube.RbacV1().RoleBindings(f.Namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind,
			Name: "system:serviceaccounts:" + f.Namespace}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	kube, err := provider.NewSecretReader(&rest.Config{Host: f.api.URL})
	if err != nil {
		t.Fatal(err)
	}
	p, err := provider.New(provider.Config{
		Vault: transit.Config{Address: f.vault.URL}, Audience: provider.DefaultAudience, VersionKey: make([]byte, 32),
		SecretReader: kube, Log: slog.New(slog.DiscardHandler), RepublishCacheBytes: provider.DefaultRepublishCacheBytes,
	})
	if err != nil {
		t.Fatal(err)
	}
	mountAll := func() {
		t.Helper()
		var group errgroup.Group
		for i := range stored {
			group.Go(func() error {
				name := stored[i].Name
				secrets := "null"
				if float64(i) >= c.AsPod*float64(len(stored)) {
					s, err := f.Kube.CoreV1().Secrets(f.Namespace).Get(t.Context(), name, metav1.GetOptions{})
					if err != nil {
						return err
					}
					secrets = text(map[string]string{"entry-0": string(s.Data["entry-0"])})
				}
				pod := pods[i/c.Volumes]
				resp, err := p.Mount(t.Context(), &v1alpha1.MountRequest{
					Attributes: text(map[string]string{
						"roleName": f.Namespace, "secretName": name, "transitKey": f.Namespace,
						"csi.storage.k8s.io/pod.namespace": f.Namespace, "csi.storage.k8s.io/pod.name": podName(i / c.Volumes),
						"csi.storage.k8s.io/pod.uid": pod.uid, "csi.storage.k8s.io/serviceAccount.name": account,
						"csi.storage.k8s.io/serviceAccount.tokens": pod.tokens,
					}),
					Secrets: secrets, TargetPath: fmt.Sprintf("/pods/%s/%d/mount", pod.uid, i), Permission: "420",
				})
				if err == nil && string(resp.Files[0].Contents) != plaintext(i) {
					err = fmt.Errorf("volume %d has the wrong files", i)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}

	// Simulate the same four steps.
	const started, rewrapped, unchanged = time.Second, 5 * time.Minute, 10 * time.Minute
	renewed := seconds(c.usable()) - 10*time.Second // the kubelet's jitter
	end := renewed + c.LaterTime(0) + 10*time.Second
	s := simulate(t, c, Caches{Tokens: true, Republish: true}, 1, plan{
		start: func(int) time.Duration { return 0 }, rewrap: func(int) time.Duration { return rewrapped }, lasts: end,
	})
	type count struct{ Logins, Decrypts, Reviews, ReadAsPod int }
	want := func(from, to time.Duration) count {
		// The simulation repeats each mount several times, this test once.
		return count{s.login.between(from, to), s.decrypt.between(from, to), s.review.between(from, to),
			int(c.AsPod * float64(len(stored)))}
	}
	f.vault.take()
	f.api.take()
	for _, step := range []struct {
		name string
		do   func()
		want count
	}{
		{"the pods start", func() {}, want(0, started)},
		{"the mounts are repeated", func() {}, want(started, rewrapped)},
		{"after a rotation", func() { f.rotate(); f.vault.take(); f.api.take() }, want(rewrapped, unchanged)},
		{"the kubelet renewed the tokens", renew, want(renewed, end)},
	} {
		step.do()
		mountAll()
		vault, api := f.vault.take(), f.api.take()
		got := count{vault["login"], vault["decrypt"], api["tokenreviews"], api[http.MethodGet]}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s (-simulation +real):\n%s", step.name, diff)
		}
		for _, kind := range []string{"login", "decrypt"} {
			delete(vault, kind)
		}
		for _, kind := range []string{"tokenreviews", http.MethodGet} {
			delete(api, kind)
		}
		if len(vault)+len(api) > 0 {
			t.Errorf("%s: other requests: %v %v", step.name, vault, api)
		}
	}
}

// TestRotator verifies that the rotator sends the requests of the model, and few others.
func TestRotator(t *testing.T) {
	t.Parallel()
	f := newRealFixture(t)
	c := Large
	c.Secrets = pageSize + 10
	f.store(c.Secrets, c.Entries)
	f.vault.take()
	f.rotate()
	vault, api := f.vault.take(), f.api.take()
	if diff := cmp.Diff(c.Rotator(),
		Rotator{Lists: api["list"], Patches: api[http.MethodPatch], Rewraps: vault["rewrap"]}); diff != "" {
		t.Errorf("(-model +rotator):\n%s", diff)
	}
	others := -c.Rotator().Lists - c.Rotator().Patches - c.Rotator().Rewraps
	for _, n := range vault {
		others += n
	}
	for _, n := range api {
		others += n
	}
	if others > 18 { // the state, the Lease, the key, and the clock, whatever the number of Secrets
		t.Errorf("%d other requests: %v %v", others, vault, api)
	}
}
