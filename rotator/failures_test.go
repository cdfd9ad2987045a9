package rotator_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

const failurePlaintext = "c4nary-plaintext"

// failureRun is a run that fails. Its key has two versions, and its Secret s an entry of the first.
type failureRun struct {
	*testFixture
	ctx   context.Context
	vault rotator.Vault
	kube  func(http.RoundTripper) http.RoundTripper // nil: every request passes
	opts  rotator.Options
	token string
}

// TestRotationFailures causes each failure of a rotation in the catalog, with a real Vault and a
// real API server. Proxies cause what those do not do on demand.
// The reason is at the beginning of the error or of a problem in the report, and in
// the log, and nothing leaks.
func TestRotationFailures(t *testing.T) {
	parallel(t)
	causes := failureCauses()
	for _, reason := range failure.All(failure.Rotation) {
		cause := causes[reason]
		if cause == nil {
			t.Errorf("no test causes %s", reason)
			continue
		}
		t.Run(reason.String(), func(t *testing.T) {
			t.Parallel() // some repeat requests for half a minute
			f := newServerFixture(t)
			r := &failureRun{testFixture: f, ctx: t.Context(), token: f.token(f.rotatorPaths()...)}
			secret := f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": failurePlaintext}))
			same := f.encrypt(f.Namespace, "s", map[string]string{"e": failurePlaintext})
			r.vault = f.Session(f.Vault.Address, r.token)
			var log bytes.Buffer
			r.opts = f.options(func(o *rotator.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			f.RotateKey()
			cause(r, same)
			report, err := rotator.Run(r.ctx, r.vault, f.Client(r.kube), r.opts)

			texts := failureTexts(report)
			has := func(text string) bool { return strings.HasPrefix(text, reason.String()+": ") }
			if failure.Of(err) != reason && !slices.ContainsFunc(texts, has) {
				t.Errorf("the reason is missing in: %v, %q", err, texts)
			}
			if report != nil && !strings.Contains(log.String(), reason.String()+": ") && failure.Of(err) != reason {
				t.Errorf("the log does not have the reason:\n%s", &log)
			}
			for _, secret := range []string{failurePlaintext,
				base64.StdEncoding.EncodeToString([]byte(failurePlaintext)), r.token,
				string(secret.Data["e"])[:20], string(same.Data["e"])[:20]} {
				for _, text := range append(texts, fmt.Sprint(err), log.String()) {
					if strings.Contains(text, secret) {
						t.Errorf("%q leaked in %q", secret, text)
					}
				}
			}
		})
	}
}

// failureTexts returns the texts of a report that begin with a reason.
func failureTexts(report *rotator.Report) (texts []string) {
	if report == nil {
		return nil
	}
	problems := slices.Concat(report.Unassigned.Items, report.NotSelected.Items)
	for _, k := range report.Keys {
		texts = append(texts, k.Error)
		problems = append(append(problems, k.Unresolved.Items...), k.Reverted.Items...)
		if k.Retire != nil {
			problems = append(problems, k.Retire.WouldBreak...)
		}
	}
	for _, p := range problems {
		texts = append(texts, p.Reason)
	}
	return texts
}

// failureCauses returns a cause for each reason. The Secret same has the same name and plaintext, and is not stored.
func failureCauses() map[*failure.Reason]func(r *failureRun, same *corev1.Secret) {
	changed := func(change func(s *corev1.Secret)) func(*failureRun, *corev1.Secret) {
		return func(r *failureRun, _ *corev1.Secret) { r.change(change) }
	}
	vaultAnswers := func(status int, text string) func(*failureRun, *corev1.Secret) {
		return func(r *failureRun, _ *corev1.Secret) {
			r.vault = r.Session(r.VaultProxy(func(w http.ResponseWriter, q *http.Request, vault http.Handler) {
				if !strings.Contains(q.URL.Path, "/rewrap/") {
					vault.ServeHTTP(w, q)
					return
				}
				w.WriteHeader(status)
				fmt.Fprint(w, text)
			}), r.token)
		}
	}
	apiAnswers := func(status int, reason metav1.StatusReason) func(*failureRun, *corev1.Secret) {
		return func(r *failureRun, _ *corev1.Secret) { r.kube = answerPatch(status, reason) }
	}
	immutable := changed(func(s *corev1.Secret) { s.Immutable = new(true) })
	return map[*failure.Reason]func(*failureRun, *corev1.Secret){
		failure.Incomplete:      immutable,
		failure.SecretImmutable: immutable,
		failure.InvalidOptions:  func(r *failureRun, _ *corev1.Secret) { r.opts.RetireAfter = -1 },
		failure.NotInstalled:    func(r *failureRun, _ *corev1.Secret) { r.opts.StateNamespace = "nowhere" },
		failure.StateUnavailable: func(r *failureRun, _ *corev1.Secret) {
			r.kube = asNobody("/configmaps/")
		},
		failure.KeyRestored: func(r *failureRun, _ *corev1.Secret) {
			backup := r.backup()
			r.RotateKey()
			if _, err := rotator.Run(r.ctx, r.vault, r.Kube, r.opts); err != nil {
				r.T.Fatal(err)
			}
			r.restore(backup)
		},
		failure.AlreadyRunning: func(r *failureRun, _ *corev1.Secret) { r.holdLease() },
		failure.Stopped: func(r *failureRun, _ *corev1.Secret) {
			var cancel context.CancelFunc
			r.ctx, cancel = context.WithCancel(r.ctx)
			r.opts.Progress = func(rotator.Progress) { cancel() }
		},
		failure.SecretsNotListed: func(r *failureRun, _ *corev1.Secret) {
			r.opts.Namespaces, r.kube = []string{r.Namespace}, asNobody("/secrets")
		},
		failure.SecretMalformed: changed(func(s *corev1.Secret) { s.Annotations[ciphertext.AnnotationScope] = "srtict" }),
		failure.KeyNotSelected:  changed(func(s *corev1.Secret) { s.Labels[ciphertext.LabelTransitKey] = "another" }),
		failure.CiphertextInUse: func(r *failureRun, _ *corev1.Secret) {
			old := r.encrypt(r.Namespace, "another", map[string]string{"e": failurePlaintext})
			old.Labels = nil
			old.Data["e"] = []byte(r.Encrypt(ciphertext.Key{Mount: "transit", Name: r.Key},
				ciphertext.Strict.Context(r.Namespace, "another", "e"), failurePlaintext))
			r.CreateSecret(old)
			r.RotateKey()
			r.opts.Retire, r.opts.RetireAfter = true, 0
		},
		failure.SecretManaged: changed(func(s *corev1.Secret) {
			s.Annotations["argocd.argoproj.io/tracking-id"] = "shop:/Secret:" + s.Namespace + "/" + s.Name
		}),
		failure.SecretModified: func(r *failureRun, same *corev1.Secret) {
			r.kube = fixture.BeforeEach(http.MethodPatch, func(n int) {
				if n == 0 {
					same.Name = "another"
					r.CreateSecret(same)
				}
			})
		},
		failure.SecretReverted: changed(func(s *corev1.Secret) { s.Annotations[ciphertext.AnnotationRewrapped] = "2" }),
		failure.SecretConflict: func(r *failureRun, same *corev1.Secret) {
			other := bytes.Clone(same.Data["e"])
			r.kube = fixture.BeforeEach(http.MethodPatch, func(int) {
				r.change(func(s *corev1.Secret) { s.Data["e"], other = other, s.Data["e"] })
			})
		},
		failure.SecretRejected:       apiAnswers(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid),
		failure.APIServerForbidden:   apiAnswers(http.StatusForbidden, metav1.StatusReasonForbidden),
		failure.APIServerUnavailable: apiAnswers(http.StatusInternalServerError, metav1.StatusReasonInternalError),

		failure.SecretEmpty: changed(func(s *corev1.Secret) { s.Data = nil }),
		failure.InvalidCiphertext: changed(func(s *corev1.Secret) {
			s.Data["e"] = []byte(failurePlaintext)
		}),
		failure.CiphertextMismatch: changed(func(s *corev1.Secret) { s.Data["other"] = s.Data["e"] }),
		failure.DecryptFailed: vaultAnswers(http.StatusBadRequest,
			`{"data": {"batch_results": [{"error": "invalid item"}]}}`),
		failure.KeyVersionNotFound: changed(func(s *corev1.Secret) {
			s.Data["e"] = bytes.Replace(s.Data["e"], []byte(":v1:"), []byte(":v9:"), 1)
		}),
		failure.KeyVersionRetired: func(r *failureRun, _ *corev1.Secret) {
			r.Write("transit/keys/"+r.Key+"/config", map[string]any{"min_decryption_version": 2})
		},

		failure.KeyNotFound: func(r *failureRun, _ *corev1.Secret) {
			r.opts.Keys, r.vault = []string{r.Key + "-gone"}, r.Root
		},
		failure.VaultForbidden: func(r *failureRun, _ *corev1.Secret) {
			r.vault = r.Session(r.Vault.Address, r.Token(`path "transit/keys/KEY" { capabilities = ["read"] }`))
		},
		failure.VaultTokenInvalid: vaultAnswers(http.StatusForbidden, `{"errors": ["permission denied", "invalid token"]}`),
		failure.VaultSealed:       vaultAnswers(http.StatusServiceUnavailable, `{"errors": ["Vault is sealed"]}`),
		failure.VaultRateLimited:  vaultAnswers(http.StatusTooManyRequests, `{"errors": ["rate limit quota exceeded"]}`),
		failure.VaultInconsistent: vaultAnswers(http.StatusOK,
			`{"data": {"batch_results": [{"ciphertext": "vault:v1:`+strings.Repeat("A", 64)+`"}]}}`),
		failure.NotVault:   vaultAnswers(http.StatusOK, "<html>"+failurePlaintext),
		failure.VaultError: vaultAnswers(http.StatusInternalServerError, `{"errors": ["internal error"]}`),
		failure.VaultUnreachable: func(r *failureRun, _ *corev1.Secret) {
			r.vault = r.Session("http://127.0.0.1:1", r.token)
		},
		failure.VaultUntrusted: func(r *failureRun, _ *corev1.Secret) {
			certificate := testenv.NewCA(r.T, "nobody's").Serving(r.T, "127.0.0.1").TLS(r.T)
			front := testenv.Front(r.T, r.Vault, &tls.Config{Certificates: []tls.Certificate{certificate}}, nil)
			r.vault = r.Session(front.URL, r.token)
		},
	}
}

// change changes the Secret of the run.
func (r *failureRun) change(change func(*corev1.Secret)) {
	r.T.Helper()
	s := r.GetSecret(r.Namespace, "s")
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	change(s)
	if _, err := r.Kube.CoreV1().Secrets(r.Namespace).Update(r.ctx, s, metav1.UpdateOptions{}); err != nil {
		r.T.Error(err)
	}
}

// holdLease has another run renew the Lease each time before this run reads it.
func (r *failureRun) holdLease() {
	r.kube = func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(q *http.Request) (*http.Response, error) {
			if strings.Contains(q.URL.Path, "/leases/") {
				r.renewLease()
			}
			return next.RoundTrip(q)
		})
	}
}

func (r *failureRun) renewLease() {
	leases := r.Kube.CoordinationV1().Leases(r.Namespace)
	l, err := leases.Get(r.ctx, rotator.StateName, metav1.GetOptions{})
	if err != nil {
		r.T.Error(err)
		return
	}
	l.Spec = coordinationv1.LeaseSpec{HolderIdentity: new("another"), LeaseDurationSeconds: new(int32(1)),
		RenewTime: new(metav1.NowMicro())}
	if _, err := leases.Update(r.ctx, l, metav1.UpdateOptions{}); err != nil {
		r.T.Error(err)
	}
}

// asNobody sends the requests to a path as a user without rights.
func asNobody(path string) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(q *http.Request) (*http.Response, error) {
			if strings.Contains(q.URL.Path, path) {
				q = q.Clone(q.Context())
				q.Header.Set("Impersonate-User", "nobody")
			}
			return next.RoundTrip(q)
		})
	}
}

// answerPatch responds to patches with an error.
func answerPatch(status int, reason metav1.StatusReason) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return fixture.RoundTripper(func(q *http.Request) (*http.Response, error) {
			if q.Method != http.MethodPatch {
				return next.RoundTrip(q)
			}
			text := fmt.Sprintf(`{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": %q, "code": %d}`,
				reason, status)
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(text)), Request: q}, nil
		})
	}
}
