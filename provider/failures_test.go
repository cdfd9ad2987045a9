package provider

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/test/async"
)

// TestMountFailures causes each failure of the catalog in many ways, with a real Vault and a real API server. Proxies
// cause what those servers do not do on demand. See failureEnv.run for the checks. Each layer has a part of the table.
func TestMountFailures(t *testing.T) {
	e := newFailureEnv(t)
	// The log of client-go, as in cmd/secretmanager-provider with --log-level=debug.
	var clientLog async.Buffer
	klog.SetSlogLogger(slog.New(slog.NewTextHandler(&clientLog, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() {
		e.leaks.check(t, "client-go's log", clientLog.String())
		klog.Background().V(4).Info("included") // so the check has something to find
		klog.Background().V(5).Info("omitted")
		if text := clientLog.String(); !strings.Contains(text, "msg=included") || strings.Contains(text, "omitted") {
			t.Errorf("client-go's log:\n%s", text)
		}
		klog.ClearLogger()
	})
	tests := slices.Concat(e.requestFailures(t), e.readFailures(t), e.vaultFailures(t), e.proxyFailures(t),
		e.inlineFailures(t), e.contentFailures(t))
	for _, reason := range failure.All(failure.Mount) {
		if !slices.ContainsFunc(tests, func(test failureTest) bool { return test.reason == reason }) {
			t.Errorf("no test causes %s", reason)
		}
	}
	e.run(t, tests)
}

// failureTest is a mount and its failure.
type failureTest struct {
	name    string
	reason  *failure.Reason // nil: the mount succeeds
	request *v1alpha1.MountRequest
	texts   []string // in the message

	configure func(*Config)
	breaks    func(*served)
	waits     bool               // until the mount timeout
	counted   map[string]float64 // series after the mounts; a minimum for requests, which may be repeated
}

func fails(name string, reason *failure.Reason, request *v1alpha1.MountRequest, texts ...string) failureTest {
	return failureTest{name: name, reason: reason, request: request, texts: texts}
}

func (f failureTest) with(configure func(*Config)) failureTest {
	f.configure = configure
	return f
}

// at sets the address of Vault.
func (f failureTest) at(address string) failureTest {
	return f.with(func(c *Config) { c.Vault.Address = address })
}

func (f failureTest) breaking(breaks func(*served)) failureTest {
	f.breaks = breaks
	return f
}

func (f failureTest) untilTimeout() failureTest {
	f.waits = true
	return f
}

func (f failureTest) counting(series ...map[string]float64) failureTest {
	f.counted = sum(series...)
	return f
}

// failureEnv is an env with secrets that no failure may reveal.
type failureEnv struct {
	*env
	leaks   leakDetector
	address string            // of a proxy that adds the tokens of Vault to leaks
	good    map[string]string // entries x and doc, a JSON document
}

func newFailureEnv(t *testing.T) *failureEnv {
	t.Helper()
	e := &failureEnv{env: newEnv(t)}
	e.Write("sys/policies/acl/"+e.policy, map[string]any{"policy": fmt.Sprintf(`
		path "transit/decrypt/%s*" { capabilities = ["update"] }
		path "nowhere/*" { capabilities = ["update"] }`, e.namespace)})
	e.address = e.proxy(t, func(*http.Request) bool { return false }, nil)
	for _, text := range canaries {
		e.leaks.add("canary", text)
	}
	e.leaks.add("token of the pod", e.jwt)
	e.good = map[string]string{"x": e.encryptSecret(t, "matrix", "x", canaryPlaintext),
		"doc": e.encryptSecret(t, "matrix", "doc", `{"a": {"b": "`+canaryPlaintext+`"}, "c": null, "`+canaryToken+`": 1}`)}
	return e
}

// encryptSecret returns ciphertext of a plaintext that no failure may reveal.
func (e *failureEnv) encryptSecret(t *testing.T, secret, entry, plaintext string) string {
	t.Helper()
	text := e.encrypt(t, ciphertext.Strict, secret, entry, plaintext)
	e.leaks.add("ciphertext of "+entry, strings.TrimPrefix(text, "vault:v1:"))
	return text
}

// proxy starts a proxy to Vault that responds to some requests itself.
func (e *failureEnv) proxy(t *testing.T, when func(*http.Request) bool, answer http.HandlerFunc) string {
	t.Helper()
	return e.faulty(func(w http.ResponseWriter, r *http.Request) bool {
		if token := r.Header.Get("X-Vault-Token"); token != "" {
			e.leaks.add("Vault token", token)
		}
		if when(r) {
			answer(w, r)
			return true
		}
		return false
	})
}

// mount returns a request with the entries, and with changes of params.
func (e *failureEnv) mount(entries map[string]string, changes ...string) *v1alpha1.MountRequest {
	return mountRequest(e.params(changes...), entries)
}

// run checks the message of each failure, its reason and code; that the mount ends in time; one line in the log, one
// audit record and one count of the metric, each with the reason; that no series is new; and that none of these
// reveals a secret. A mount that does not wait is repeated, because the first one may have filled a cache.
func (e *failureEnv) run(t *testing.T, tests []failureTest) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			mounts, configure := 2, test.configure
			if configure == nil {
				configure = func(*Config) {}
			}
			timeout := within(DefaultMountTimeout)
			if test.waits {
				mounts, timeout = 1, within(time.Second)
			}
			s := serve(t, e.address, cached, timeout, configure)
			if test.breaks != nil {
				test.breaks(s)
			}
			before := slices.Sorted(maps.Keys(series(t, s.provider)))
			for range mounts {
				began := time.Now()
				resp, err := s.Mount(t.Context(), test.request)
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("the mount took %s", took)
				}
				e.leaks.check(t, "the error", fmt.Sprint(err, status.Convert(err).Details()))
				switch {
				case test.reason != nil:
					wantError(t, err, test.reason, test.texts...)
				case err != nil:
					t.Fatal(err)
				}
				if (resp == nil) != (test.reason != nil) {
					t.Errorf("response %v, error %v", resp, err)
				}
			}
			e.checkTraces(t, s, test, mounts)
			if diff := cmp.Diff(before, slices.Sorted(maps.Keys(series(t, s.provider)))); diff != "" {
				t.Errorf("series (-before +after):\n%s", diff)
			}
		})
	}
}

// checkTraces checks the log, the audit log and the metrics page.
func (e *failureEnv) checkTraces(t *testing.T, s *served, test failureTest, mounts int) {
	t.Helper()
	line, result := "msg=mounted ", "success"
	if test.reason != nil {
		line, result = `level=ERROR msg="mount failed" `, "failure"
	}
	log := s.log.String()
	if n := strings.Count(log, line); n != mounts {
		t.Errorf("the log has %d lines of %d mounts:\n%s", n, mounts, log)
	}
	if test.reason == failure.SecretForbidden && strings.Contains(log, "kubectl") {
		// The class alone requests the Secret, so the log must not print a command that grants access to it.
		t.Errorf("the log prints a command:\n%s", log)
	}
	if test.reason != nil {
		if text := fmt.Sprintf("reason=%s code=%s error=", test.reason, test.reason.Code()); !strings.Contains(log, text) {
			t.Errorf("the log does not have %q:\n%s", text, log)
		}
	}
	records := s.records(t)
	if len(records) != mounts || records[0].Reason != nameOf(test.reason) {
		t.Errorf("audit records: %+v", records)
	}
	got := series(t, s.provider)
	for name, want := range sum(test.counted, map[string]float64{
		"mounts_total{reason=" + nameOf(test.reason) + ",result=" + result + "}": float64(mounts),
	}) {
		repeated := strings.Contains(name, "_request") && want > 0
		if got[name] < want || got[name] > want && !repeated {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	body, _ := page(t, s.provider, "")
	for where, text := range map[string]string{"the log": log, "the audit log": s.audit.String(),
		"the metrics page": body} {
		e.leaks.check(t, where, text)
	}
}

// TestPanicInMount verifies that a panic fails only its mount, like any other failure, and that the provider continues.
func TestPanicInMount(t *testing.T) {
	e := newFailureEnv(t)
	request := e.mount(e.good)
	for name, value := range map[string]any{
		"text": canaryPlaintext, "error": errors.New(e.jwt), "request": request, "nil pointer": nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, e.address)
			calls := 0
			s.provider.now = func() time.Time {
				if calls++; calls != 2 { // the first call is at the start of the mount
					return time.Now()
				}
				if value == nil {
					panic((*served)(nil).endpoint)
				}
				panic(value)
			}
			before := series(t, s.provider)
			_, err := s.Mount(t.Context(), request)
			wantError(t, err, failure.Internal, "bug in the provider")
			want := failed(failure.Internal, "none", map[string]float64{"panics_total": 1})
			if diff := cmp.Diff(want, since(t, s.provider, before)); diff != "" {
				t.Errorf("(-want +counted):\n%s", diff)
			}
			e.leaks.check(t, "the error", err.Error())
			e.checkTraces(t, s, failureTest{reason: failure.Internal}, 1)
			if records := s.records(t); records[0].Outcome != outcomeFailed || records[0].Pod != "app-0" {
				t.Errorf("%+v", records)
			}
			wantTexts(t, s.log.String(), e.logNames(), "error=panic", "failures_test.go")
			if _, err := s.Mount(t.Context(), request); err != nil {
				t.Errorf("the next mount: %v", err)
			}
		})
	}
}
