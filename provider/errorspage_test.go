package provider

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// documentedError is a row of the first table of docs/reference/errors.md.
type documentedError struct{ code, text string }

func (d documentedError) is(err error) bool {
	s := status.Convert(err)
	return s.Code().String() == d.code && strings.Contains(s.Message(), d.text)
}

var documentedErrors = sync.OnceValues(func() (rows []documentedError, err error) {
	page, err := os.ReadFile("../docs/reference/errors.md")
	if err != nil {
		return nil, err
	}
	_, table, _ := strings.Cut(string(page), "\n## Of a mount\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		rows = append(rows, documentedError{m[1], m[2]})
	}
	if len(rows) < 30 {
		return nil, fmt.Errorf("docs/reference/errors.md has only %d rows", len(rows))
	}
	return rows, nil
})

// documented: whatever error a test gets from a mount, the page has a row for it.
func documented(t testing.TB, err error) {
	t.Helper()
	rows, readErr := documentedErrors()
	if readErr != nil {
		t.Fatal(readErr)
	}
	for _, row := range rows {
		if row.is(err) {
			return
		}
	}
	t.Errorf("docs/reference/errors.md has no row for %s: %s", status.Code(err), status.Convert(err).Message())
}

// TestErrorsPage makes each error that docs/reference/errors.md lists, with a real
// Vault and a real API server; what those do not do on demand, a proxy of Vault does.
func TestErrorsPage(t *testing.T) {
	rows, err := documentedErrors()
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t)
	e.write(t, "sys/policies/acl/"+e.policy, map[string]any{
		"policy": fmt.Sprintf(`path "transit/decrypt/%s*" { capabilities = ["update"] }`, e.namespace),
	})
	kube := testenv.SharedAPIServer(t)
	asPod := e.asPod(t, kube)
	allowGet(t, kube, e.namespace, "absent", "empty")
	unknown := issuer().PodToken(e.namespace, "app-0", "uid-0", "app", "", time.Hour) // to the API server
	x := e.encrypt(t, ciphertext.Strict, "matrix", "x", `{"a": "b"}`)
	good := map[string]string{"x": x}
	moved := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "y", "v")}

	sealed := newEnvIn(t, testenv.NewVault(t))
	if err := sealed.vault.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	retired := newEnv(t)
	retiredEntries := map[string]string{"x": retired.encrypt(t, ciphertext.Strict, "matrix", "x", "v")}
	retired.write(t, retired.key.String()+"/rotate", nil)
	retired.write(t, retired.key.String()+"/config", map[string]any{"min_decryption_version": 2})
	answers := func(status int, text string) string {
		return faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(status)
			fmt.Fprint(w, text)
			return true
		})
	}
	decryptAnswers := func(status int, text string) string {
		return faulty(t, e.vault, func(w http.ResponseWriter, r *http.Request) bool {
			if isDecrypt(r) {
				w.WriteHeader(status)
				fmt.Fprint(w, text)
			}
			return isDecrypt(r)
		})
	}
	untrusted := testenv.Front(t, e.vault, &tls.Config{Certificates: []tls.Certificate{testenv.NewCA(t, "nobody's").Serving(t, "127.0.0.1").TLS(t)}}, nil).URL
	direct, dead := e.vault.Address, "http://"+deadAddress(t)
	withKube := withAPIServer(t, kube.Kubeconfig)
	withoutKube, err := NewKubernetes(&rest.Config{Host: "http://" + deadAddress(t)})
	if err != nil {
		t.Fatal(err)
	}
	lateKube, err := NewKubernetes(&rest.Config{Host: faulty(t, e.vault, func(_ http.ResponseWriter, r *http.Request) bool { hold(r); return true })})
	if err != nil {
		t.Fatal(err)
	}

	manyEntries, err := NewKubernetes(&rest.Config{Host: faulty(t, e.vault, func(w http.ResponseWriter, _ *http.Request) bool {
		fmt.Fprint(w, `{"kind":"Secret","data":{"a":""`+strings.Repeat(`,"a":""`, maxEntries)+"}}")
		return true
	})})
	if err != nil {
		t.Fatal(err)
	}

	type cause struct {
		address string
		params  map[string]string
		entries map[string]string
		change  func(*Config)
		broken  func(*served)
	}
	causes := map[documentedError]cause{
		{"InvalidArgument", "the parameters of"}:                             {direct, e.params("scope", "wide"), good, nil, nil},
		{"InvalidArgument", "is not a parameter; did you mean"}:              {direct, e.params("secretNames", "x"), good, nil, nil},
		{"InvalidArgument", "is not the name of a SecretProviderClass"}:      {direct, e.params(keyClass, "a,b"), good, nil, nil},
		{"InvalidArgument", "--vault-allowed-addresses"}:                     {direct, e.params("vaultAddress", "https://evil.example"), good, nil, nil},
		{"InvalidArgument", "--vault-allowed-auth-mounts"}:                   {direct, e.params("vaultAuthMountPath", "cert"), good, nil, nil},
		{"InvalidArgument", "--vault-allowed-namespaces"}:                    {direct, e.params("vaultNamespace", "team"), good, nil, nil},
		{"Unauthenticated", "is not a Kubernetes service account token"}:     {direct, e.params(keyTokens, tokensJSON(map[string]token{"vault": {"x", time.Time{}}})), good, nil, nil},
		{"PermissionDenied", "is not this pod's"}:                            {direct, e.params(keyPodUID, "uid-1", keyTokens, e.vaultToken(e.namespace, "app", "vault")), good, nil, nil},
		{"PermissionDenied", "the login response is about another identity"}: {answers(200, `{"auth": {"client_token": "t"}}`), e.params(), good, nil, nil},
		{"InvalidArgument", "reading the driver's request"}:                  {direct, nil, good, nil, nil},
		{"InvalidArgument", "more than the limit of"}:                        {direct, e.params("audience", strings.Repeat("a", maxParameter+1)), good, nil, nil},
		{"FailedPrecondition", "the plaintext holds more values than the limit"}: {direct, e.params("objects", "- {objectName: x, field: a}"),
			map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", "["+strings.Repeat("0,", maxNodes)+"0]")}, nil, nil},
		{"FailedPrecondition", "it has more than the limit of"}: {direct, e.params(asPod...), nil, func(c *Config) { c.Kubernetes = manyEntries }, nil},
		{"Internal", "too many large mounts"}: {direct, e.params(), map[string]string{"x": strings.Repeat("x", 64<<10)}, nil, func(s *served) {
			s.provider.requests = newAdmission(1, 0)
			s.provider.requests.free = 0
		}},
		{"FailedPrecondition", "no ciphertext of Secret"}:                                                               {direct, e.params(), nil, nil, nil},
		{"FailedPrecondition", "no service-account token of audience"}:                                                  {direct, e.params("audience", "team"), good, nil, nil},
		{"Unauthenticated", "expired at"}:                                                                               {direct, e.params(keyTokens, tokensJSON(map[string]token{"vault": {e.jwt, time.Now().Add(-time.Minute)}})), good, nil, nil},
		{"NotFound", "there is no entry"}:                                                                               {direct, e.params("objects", "- {objectName: y}"), good, nil, nil},
		{"FailedPrecondition", "is not ciphertext"}:                                                                     {direct, e.params(), map[string]string{"x": "plain"}, nil, nil},
		{"FailedPrecondition", "is empty; check how the Secret was written"}:                                            {direct, e.params(), map[string]string{"x": ""}, nil, nil},
		{"FailedPrecondition", "is damaged ciphertext"}:                                                                 {direct, e.params(), map[string]string{"x": "vault:v1:***"}, nil, nil},
		{"FailedPrecondition", "it has no entries"}:                                                                     {direct, e.params(append(asPod, "secretName", "empty")...), nil, withKube, nil},
		{"FailedPrecondition", "taking every entry of Secret"}:                                                          {direct, e.params(), map[string]string{"..data": x}, nil, nil},
		{"NotFound", "not found; check secretName in the class"}:                                                        {direct, e.params(append(asPod, "secretName", "absent")...), nil, withKube, nil},
		{"PermissionDenied", `cannot get resource "secrets"`}:                                                           {direct, e.params(append(asPod, "secretName", "forbidden")...), nil, withKube, nil},
		{"Unauthenticated", "Unauthorized"}:                                                                             {direct, e.params(keyTokens, tokensJSON(map[string]token{"": {unknown, time.Time{}}, "vault": {e.jwt, time.Time{}}})), nil, withKube, nil},
		{"Internal", "the API server can be reached"}:                                                                   {direct, e.params(asPod...), nil, func(c *Config) { c.Kubernetes, c.MountTimeout = withoutKube, 5*time.Second }, nil},
		{"PermissionDenied", "logging in to Vault at"}:                                                                  {direct, e.params("roleName", "nobody"), good, nil, nil},
		{"NotFound", "logging in to Vault at"}:                                                                          {answers(404, "<html>"), e.params(), good, nil, nil},
		{"PermissionDenied", `that a policy of the role gives "update" on`}:                                             {direct, e.params("transitKey", "another"), good, nil, nil},
		{"Unauthenticated", "the token ended right after the login"}:                                                    {decryptAnswers(403, `{"errors": ["permission denied", "invalid token"]}`), e.params(), good, nil, nil},
		{"NotFound", "transitKey and transitMount in the class"}:                                                        {direct, e.params("transitKey", e.namespace+"-gone"), good, nil, nil},
		{"FailedPrecondition", "it was encrypted for another namespace, Secret or entry, or with another key or scope"}: {direct, e.params(), moved, nil, nil},
		{"FailedPrecondition", "its key version has been retired"}:                                                      {direct, retired.params(), retiredEntries, nil, nil},
		{"FailedPrecondition", "the key has no such version"}:                                                           {direct, e.params(), map[string]string{"x": "vault:v99:" + x[len("vault:v1:"):]}, nil, nil},
		{"FailedPrecondition", "scope none is for a key that is not derived"}:                                           {direct, e.params("scope", "none"), good, nil, nil},
		{"FailedPrecondition", "making the files of Secret"}:                                                            {direct, e.params("objects", "- {objectName: x, field: b}"), good, nil, nil},
		{"FailedPrecondition", "that the driver takes in one volume"}: {direct, e.params("objects", manyObjects("x", 6)),
			map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", strings.Repeat("x", 700_000))}, nil, nil},
		{"Internal", "is sealed and was not unsealed within"}:       {sealed.vault.Address, sealed.params(), good, nil, nil},
		{"Internal", "cannot be reached within"}:                    {dead, e.params(), good, nil, nil},
		{"Internal", "is not trusted"}:                              {untrusted, e.params(), good, nil, nil},
		{"Internal", "refused requests for all of"}:                 {answers(429, `{"errors": ["rate limit quota exceeded"]}`), e.params(), good, nil, nil},
		{"Internal", "no proxy or login page answers in its place"}: {answers(200, "<html>"), e.params(), good, nil, nil},
		{"Internal", "it was not done within"}:                      {direct, e.params(asPod...), nil, func(c *Config) { c.Kubernetes = lateKube }, nil},
		{"Internal", "Vault's log, and that Vault is up"}:           {decryptAnswers(500, `{"errors": ["internal error"]}`), e.params(), good, nil, nil},
		{"Internal", "the provider made a mistake of its own"}: {dead, e.params(), good, nil, func(s *served) {
			s.provider.vaults[dead] = nil
		}},
	}
	create(t, kube, "/api/v1/namespaces/"+e.namespace+"/secrets", corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "empty"}})

	seen := map[documentedError]bool{}
	for _, row := range rows {
		c, ok := causes[row]
		if !ok {
			t.Errorf("nothing here causes %s: %s", row.code, row.text)
			continue
		}
		if seen[row] {
			t.Errorf("the page has %s: %s twice", row.code, row.text)
		}
		seen[row] = true
		t.Run(row.code+" "+row.text, func(t *testing.T) {
			t.Parallel()
			change := c.change
			if change == nil {
				change = func(*Config) {}
			}
			s := serve(t, c.address, within(time.Second), change)
			if c.broken != nil {
				c.broken(s)
			}
			request := mountRequest(c.params, c.entries)
			if c.params == nil {
				request.Attributes = "[]"
			}
			_, err := s.Mount(t.Context(), request)
			if !row.is(err) {
				t.Errorf("got %v; want %s: … %s …", err, row.code, row.text)
			}
		})
	}
	for row := range causes {
		if !seen[row] {
			t.Errorf("the page does not have %s: %s", row.code, row.text)
		}
	}
}

func manyObjects(entry string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- {objectName: f%d, secretKey: %s}\n", i, entry)
	}
	return b.String()
}
