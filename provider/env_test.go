package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/async"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// env is a namespace in a real Vault, with a derived key and a role that may decrypt
// with it.
type env struct {
	*fixture.Transit
	namespace string
	key       ciphertext.Key
	policy    string
	jwt       string // of pod app-0 with service account app, audience vault

	mu     sync.Mutex
	tokens map[[4]string]string // of other pods: a pod keeps its token until it is renewed
}

// newEnv returns an env in the shared Vault.
func newEnv(t testing.TB) *env { return newEnvIn(t, testenv.SharedVault(t)) }

func newEnvIn(t testing.TB, v *testenv.Vault) *env {
	t.Helper()
	f := fixture.In(t, v)
	e := &env{Transit: f, namespace: f.Key, key: ciphertext.Key{Mount: "transit", Name: f.Key}}
	e.policy = e.Policy(fixture.DecryptPolicy)
	e.TrustIssuer()
	e.allowLogin(testenv.Role{Mount: "jwt"})
	e.jwt = fixture.Issuer().PodToken(e.namespace, "app-0", "uid-0", "app", "vault", time.Hour)
	return e
}

// allowLogin allows service account app to log in with the role.
func (e *env) allowLogin(role testenv.Role) {
	e.T.Helper()
	role.Name, role.Namespace = cmp.Or(role.Name, e.namespace), e.namespace
	role.ServiceAccount, role.Policies = "app", []string{e.policy}
	e.AllowLogin(role)
}

// encrypt returns the plaintext encrypted for an entry of a Secret.
func (e *env) encrypt(t testing.TB, scope ciphertext.Scope, secret, entry, plaintext string) string {
	t.Helper()
	return e.Encrypt(e.key, scope.Context(e.namespace, secret, entry), plaintext)
}

// withAPIServer adds an API server with service account app.
func (e *env) withAPIServer() *fixture.Fixture {
	e.T.Helper()
	f := e.With(testenv.SharedAPIServer(e.T))
	f.API.CreateServiceAccount(e.T, e.namespace, "app")
	return f
}

// ciphertextSecret returns Secret matrix with one entry.
func (e *env) ciphertextSecret(entry, plaintext string) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: "matrix", Namespace: e.namespace}, Type: ciphertext.Type,
		Data: map[string][]byte{entry: []byte(e.encrypt(e.T, ciphertext.Strict, "matrix", entry, plaintext))},
	}
}

// params returns the parameters of a class for the env's key and role, with changes as
// pairs. They include the pod's token for Vault, unless a change sets the tokens.
func (e *env) params(more ...string) map[string]string {
	p := map[string]string{
		"roleName": e.namespace, "secretName": "matrix", "transitKey": e.key.Name, "vaultAuthMountPath": "jwt",
		class.AttributePodNamespace: e.namespace, class.AttributePodName: "app-0", class.AttributePodUID: "uid-0",
		class.AttributeAccount:            "app",
		class.KubeletPrefix + "ephemeral": "true", class.AttributeClass: "matrix",
	}
	for i := 0; i < len(more); i += 2 {
		p[more[i]] = more[i+1]
	}
	if _, ok := p[class.AttributeTokens]; !ok {
		p[class.AttributeTokens] = tokensJSON(map[string]token{"vault": {e.podJWT(p), tokenExpiry}})
	}
	maps.DeleteFunc(p, func(_, value string) bool { return value == "" })
	return p
}

// logNames returns the attributes in the log of a mount with the parameters.
func (e *env) logNames() string {
	return fmt.Sprintf("namespace=%s pod=app-0 pod_uid=uid-0 service_account=app class=matrix secret=matrix "+
		"role=%s key=%s/%s",
		e.namespace, e.namespace, e.key.Mount, e.key.Name)
}

// tokenExpiry is the expiry of the tokens in params.
var tokenExpiry = time.Now().Add(time.Hour)

// podJWT returns the token for Vault of the pod in the parameters.
func (e *env) podJWT(params map[string]string) string {
	pod := [4]string{params[class.AttributePodNamespace], params[class.AttributePodName], params[class.AttributePodUID],
		params[class.AttributeAccount]}
	if pod == [4]string{e.namespace, "app-0", "uid-0", "app"} {
		return e.jwt
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tokens == nil {
		e.tokens = map[[4]string]string{}
	}
	if e.tokens[pod] == "" {
		e.tokens[pod] = fixture.Issuer().PodToken(pod[0], pod[1], pod[2], pod[3], "vault", time.Hour)
	}
	return e.tokens[pod]
}

// vaultToken returns the tokens of pod app-0 in the namespace with the account. Each call
// returns a new token.
func (e *env) vaultToken(namespace, account, audience string) string {
	return tokensJSON(
		map[string]token{audience: {fixture.Issuer().PodToken(namespace, "app-0", "uid-0", account, audience, time.Hour),
			time.Time{}}})
}

// asPod returns changes of params for pod app-0 of the API server, with its tokens for
// Vault (signed by the issuer) and for the API server.
func (e *env) asPod(api *testenv.APIServer) []string {
	e.T.Helper()
	jwt, uid := api.PodToken(e.T, e.namespace, "app-0", "app", "", time.Hour)
	return []string{class.AttributePodUID, uid, class.AttributeTokens, tokensJSON(map[string]token{
		"": {jwt, time.Time{}}, "vault": {fixture.Issuer().PodToken(e.namespace, "app-0", uid, "app", "vault", time.Hour),
			time.Time{}},
	})}
}

func tokensJSON(t map[string]token) string { return toJSON(map[string]token(t)) }

func toJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// mountRequest returns the driver's request for parameters and the entries of the
// Secret that the kubelet read; null for none.
func mountRequest(params, entries map[string]string) *v1alpha1.MountRequest {
	return &v1alpha1.MountRequest{
		Attributes: toJSON(params), Secrets: toJSON(entries),
		TargetPath: "/var/lib/kubelet/pods/uid-0/volumes/kubernetes.io~csi/secrets/mount", Permission: "420",
	}
}

// served is a provider on its own socket, with a client like the driver's.
type served struct {
	v1alpha1.CSIDriverProviderClient
	provider *Provider
	server   *Server
	endpoint string
	log      *async.Buffer
	audit    *async.Buffer
}

// serve serves a provider for the Vault until the test ends.
func serve(t testing.TB, address string, change ...func(*Config)) *served {
	t.Helper()
	s := &served{endpoint: filepath.Join(t.TempDir(), "p.sock"), log: &async.Buffer{}, audit: &async.Buffer{}}
	c := Config{
		Vault: transit.Config{Address: address}, Audience: DefaultAudience, AllowedAuthMounts: []string{"jwt"},
		VersionKey:   make([]byte, versionKeySize),
		Log:          slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		BuildVersion: "v1.2.3",
		Node:         "node-0", Audit: s.audit,
	}
	for _, change := range change {
		change(&c)
	}
	var err error
	if s.provider, err = New(c); err != nil {
		t.Fatal(err)
	}
	if s.server, err = Listen(s.endpoint, s.provider); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
		s.records(t) // validates each against the schema
	})
	s.CSIDriverProviderClient = dial(t, s.endpoint)
	return s
}

func dial(t testing.TB, endpoint string) v1alpha1.CSIDriverProviderClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return v1alpha1.NewCSIDriverProviderClient(conn)
}

// within sets a short mount timeout, for tests of mounts that wait.
func within(d time.Duration) func(*Config) { return func(c *Config) { c.MountTimeout = d } }

// file is the mode and content of an expected file.
type file struct {
	Mode    int32
	Content string
}

func filesOf(resp *v1alpha1.MountResponse) map[string]file {
	files := map[string]file{}
	for _, f := range resp.GetFiles() {
		files[f.Path] = file{f.Mode, string(f.Contents)}
	}
	return files
}

func versionsOf(resp *v1alpha1.MountResponse) map[string]string {
	versions := map[string]string{}
	for _, v := range resp.GetObjectVersion() {
		versions[v.Id] = v.Version
	}
	return versions
}

// parts matches every message: the reason, what failed, the cause, and what to check.
var parts = regexp.MustCompile(`(?s)^[A-Z]\w+: [^:]+.*: .+; check .+`)

// wantError checks that an error has a reason, with its code and the form of every message, and contains the texts.
func wantError(t testing.TB, err error, want *failure.Reason, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	s := status.Convert(err)
	if got, _ := failure.Parse(s.Message()); got != want {
		t.Errorf("reason %v, want %v: %s", got, want, s.Message())
	}
	if want != nil && s.Code() != want.Code() {
		t.Errorf("code %s, want %s", s.Code(), want.Code())
	}
	if !parts.MatchString(s.Message()) {
		t.Errorf("message %q does not say what failed, why and what to check", s.Message())
	}
	wantTexts(t, s.Message(), texts...)
}

func wantTexts(t testing.TB, message string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(message, text) {
			t.Errorf("%q\ndoes not have %q", message, text)
		}
	}
}

// clean verifies that texts contain none of the secrets.
func clean(t testing.TB, secrets []string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for _, secret := range secrets {
			if secret != "" && strings.Contains(text, secret) {
				t.Errorf("%q leaked in %q", secret, text)
			}
		}
	}
}

func merged(m map[string]string, more ...string) map[string]string {
	m = maps.Clone(m)
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}
