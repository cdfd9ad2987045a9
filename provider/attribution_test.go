package provider

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

// vaultAuditLine has the fields of a line of Vault's audit log that the test checks.
type vaultAuditLine struct {
	Type string
	Auth struct {
		ClientToken string `json:"client_token"`
		DisplayName string `json:"display_name"`
		Metadata    map[string]string
	}
	Request struct {
		ID      string
		Path    string
		Headers map[string][]string
	}
	Response struct {
		Auth struct{ Metadata map[string]string }
	}
	Error string
}

// header returns the value of an audit header if there is exactly one, or "".
func (l vaultAuditLine) header(name string) string {
	values := l.Request.Headers["x-secretmanager-"+name]
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// auditVault enables a file audit device and registers the headers.
func auditVault(t testing.TB, v *testenv.Vault) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "vault-audit.log")
	if _, err := v.Write(t.Context(), "sys/audit/file",
		map[string]any{"type": "file", "options": map[string]string{"file_path": file}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range transit.AuditHeaders() {
		if _, err := v.Write(t.Context(), "sys/config/auditing/request-headers/"+name,
			map[string]any{"hmac": false}); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// podMappings have Vault copy the pod of the token to its metadata: see docs/audit.md.
var podMappings = map[string]string{
	"/kubernetes.io/namespace": "service_account_namespace", "/kubernetes.io/serviceaccount/name": "service_account_name",
	"/kubernetes.io/pod/name": "pod_name", "/kubernetes.io/pod/uid": "pod_uid",
}

// attributed is a namespace whose pods mount from an audited Vault.
type attributed struct {
	*env
	vaultAudit string
	served     *served
	logins     int // number of different tokens of pods
}

// attribute makes the given number of mounts of pods. Each mount reaches Vault. A pod has
// two Secrets, and a new token with every 20th mount.
func attribute(t testing.TB, mounts, pods int) *attributed {
	t.Helper()
	v := testenv.NewVault(t)
	a := &attributed{env: newEnvIn(t, v), vaultAudit: auditVault(t, v)}
	a.Write("auth/jwt/role/"+a.namespace, map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_subject": testenv.Subject(a.namespace, "app"),
		"bound_audiences": "vault",
		"token_type":      "batch", "token_ttl": "20m", "token_policies": []string{a.policy},
		"claim_mappings": podMappings,
	})
	entries := map[string]map[string]string{}
	for _, secret := range []string{"matrix", "mail"} {
		entries[secret] = map[string]string{"x": a.encrypt(t, ciphertext.Strict, secret, "x", "v")}
	}
	a.served = serve(t, v.Address)
	var work errgroup.Group
	work.SetLimit(16)
	each := mounts / pods
	for pod := range pods {
		var jwt string
		for i := range each {
			if i%20 == 0 {
				claims := fixture.Issuer().Claims(a.namespace, "app", "vault", time.Hour)
				claims["kubernetes.io"].(map[string]any)["pod"] = map[string]any{"name": fmt.Sprint("app-", pod),
					"uid": fmt.Sprint("uid-", pod)}
				jwt = fixture.Issuer().Sign(claims)
				a.logins++
			}
			secret := []string{"matrix", "mail"}[i%2]
			params := a.params("secretName", secret, class.AttributeClass, secret+"-class", class.AttributePodName,
				fmt.Sprint("app-", pod), class.AttributePodUID, fmt.Sprint("uid-", pod),
				class.AttributeTokens, tokensJSON(map[string]token{"vault": {jwt, tokenExpiry}}))
			work.Go(func() error {
				_, err := a.served.Mount(t.Context(), mountRequest(params, entries[secret]))
				return err
			})
		}
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	return a
}

// vaultLines returns the lines of Vault's audit log about logins and decrypts.
func (a *attributed) vaultLines(t testing.TB) (lines []vaultAuditLine) {
	t.Helper()
	file, err := os.Open(a.vaultAudit)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var line vaultAuditLine
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			t.Fatalf("%v: %s", err, scanner.Text())
		}
		if strings.HasSuffix(line.Request.Path, "/login") || strings.Contains(line.Request.Path, "/decrypt/") {
			lines = append(lines, line)
		}
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestEveryDecryptIsAttributable verifies that every line of an audit device about a login
// or a decrypt names the pod, as Vault itself has verified it from the token.
// The provider's audit log has one record for each decrypt, with its request id.
// SECRETMANAGER_AUDIT_MOUNTS is the number of mounts;
// make test-audit makes 10,000.
func TestEveryDecryptIsAttributable(t *testing.T) {
	mounts, pods := 1000, 50
	if text := os.Getenv("SECRETMANAGER_AUDIT_MOUNTS"); text != "" {
		var err error
		if mounts, err = strconv.Atoi(text); err != nil || mounts%pods != 0 {
			t.Fatalf("SECRETMANAGER_AUDIT_MOUNTS: %q is not a multiple of %d", text, pods)
		}
	}
	began := time.Now()
	a := attribute(t, mounts, pods)
	took := time.Since(began)

	counts := map[string]int{}              // lines by kind
	decrypts := map[string]vaultAuditLine{} // by request id
	seen := map[string]bool{}               // pods
	wrong := 0
	for _, line := range a.vaultLines(t) {
		operation := "login"
		if strings.Contains(line.Request.Path, "/decrypt/") {
			operation = "decrypt"
		}
		counts[operation+" "+line.Type]++
		verified := line.Auth.Metadata
		if operation == "login" {
			verified = line.Response.Auth.Metadata
		}
		problem := ""
		for name, metadata := range map[string]string{
			"namespace": "service_account_namespace", "pod": "pod_name", "pod-uid": "pod_uid",
			"service-account": "service_account_name",
		} {
			got := line.header(name)
			// Before a login the identity is not known. The response of the login has the
			// same request id and names the pod.
			if got == "" || got != verified[metadata] && !(operation == "login" && line.Type == "request") {
				problem = fmt.Sprintf("%s is %q, and Vault verified %q", name, got, verified[metadata])
			}
		}
		for _, name := range []string{"secret", "class", "node", "request-id"} {
			if line.header(name) == "" {
				problem = name + " is missing"
			}
		}
		if line.header("class") != line.header("secret")+"-class" || line.header("node") != "node-0" || line.Error != "" {
			problem = "class, node or error is wrong"
		}
		if problem != "" {
			if wrong++; wrong <= 5 {
				t.Errorf("%s of %s: %s: %+v", line.Type, line.Request.Path, problem, line)
			}
		}
		seen[line.header("pod")] = true
		if operation == "decrypt" && line.Type == "response" {
			decrypts[line.header("request-id")] = line
		}
	}
	want := map[string]int{"decrypt request": mounts, "decrypt response": mounts, "login request": a.logins,
		"login response": a.logins}
	if !maps.Equal(counts, want) || wrong > 0 || len(seen) != pods || len(decrypts) != mounts {
		t.Errorf("%d of the lines %v do not name their pod; want the lines %v of %d pods, got %d", wrong, counts, want,
			pods, len(seen))
	}

	records := a.served.records(t)
	if len(records) != mounts {
		t.Errorf("%d audit records of %d mounts", len(records), mounts)
	}
	for _, rec := range records {
		line, ok := decrypts[rec.RequestID]
		if !ok || rec.Pod != line.header("pod") || rec.PodUID != line.header("pod-uid") ||
			rec.Secret != line.header("secret") || rec.Outcome != outcomeDecrypted ||
			!slices.Equal(rec.Entries, []auditEntry{{"x", 1, true}}) {
			t.Fatalf("the record %+v has the line %+v in Vault's audit log", rec, line)
		}
		delete(decrypts, rec.RequestID)
	}
	if len(decrypts) > 0 {
		t.Errorf("%d decrypts have no record", len(decrypts))
	}
	t.Logf("%d mounts, %d logins, %d pods in %s: lines %v, and %d that do not name their pod", mounts, a.logins, pods,
		took.Round(time.Millisecond), counts, wrong)
}
