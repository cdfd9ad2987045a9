package transit

import (
	"context"
	"fmt"
	"net/http"
)

// Audit is the origin of requests, for Vault's audit log. Each field that is not empty
// is sent as a request header, which Vault writes to its audit devices if it is
// registered: see [AuditHeaders]. The headers grant nothing: Vault authorizes by the
// token alone.
type Audit struct {
	Namespace, Pod, PodUID, ServiceAccount string // of the pod that a mount is for
	Secret, Class                          string // the Secret and SecretProviderClass of the mount
	Node                                   string // of the provider
	RequestID                              string // of the mount

	RunID string // of the run of the rotator or of a command
	Verb  string // "rotator", or the name of the command
}

type auditHeader struct{ name, value string }

// headers returns all headers. Those with an empty value are not sent.
func (a Audit) headers() []auditHeader {
	return []auditHeader{
		{"X-SecretManager-Namespace", a.Namespace},
		{"X-SecretManager-Pod", a.Pod},
		{"X-SecretManager-Pod-Uid", a.PodUID},
		{"X-SecretManager-Service-Account", a.ServiceAccount},
		{"X-SecretManager-Secret", a.Secret},
		{"X-SecretManager-Class", a.Class},
		{"X-SecretManager-Node", a.Node},
		{"X-SecretManager-Request-Id", a.RequestID},
		{"X-SecretManager-Run-Id", a.RunID},
		{"X-SecretManager-Verb", a.Verb},
	}
}

// AuditHeaders returns the names of all headers that an [Audit] may set. Vault writes a
// header to its audit devices only if sys/config/auditing/request-headers/NAME exists.
func AuditHeaders() []string {
	var names []string
	for _, h := range (Audit{}).headers() {
		names = append(names, h.name)
	}
	return names
}

// maxAuditValue is the length of the longest name in Kubernetes.
const maxAuditValue = 253

// check reports whether all values are safe as headers. A line break would add other
// headers, and proxies treat spaces, commas and characters outside ASCII differently.
func (a Audit) check() error {
	for _, h := range a.headers() {
		if len(h.value) > maxAuditValue {
			return fmt.Errorf("audit header %s: the value has %d bytes, more than %d", h.name, len(h.value), maxAuditValue)
		}
		for _, c := range []byte(h.value) {
			if c <= ' ' || c > '~' || c == ',' {
				return fmt.Errorf("audit header %s: the value has a byte %#02x, which is not allowed in a name", h.name, c)
			}
		}
	}
	return nil
}

// SetHeaders sets the headers of a request that another client sends. It does not check
// the values, which must be names of Kubernetes or generated identifiers.
func (a Audit) SetHeaders(to http.Header) {
	for _, h := range a.headers() {
		if h.value != "" {
			to.Set(h.name, h.value)
		}
	}
}

// auditKey is the context key of an Audit.
type auditKey struct{}

// WithAudit returns a context whose requests to Vault carry the audit headers of a,
// including logins and redirected requests. A request with a value that is not safe as
// a header fails before it is sent.
//
// A login that several callers of a [LoginSource] share carries the headers of the
// caller that started it.
func WithAudit(ctx context.Context, a Audit) context.Context {
	return context.WithValue(ctx, auditKey{}, a)
}

// AuditFrom returns the Audit that [WithAudit] put into the context, or the zero Audit.
func AuditFrom(ctx context.Context) Audit {
	a, _ := ctx.Value(auditKey{}).(Audit)
	return a
}
