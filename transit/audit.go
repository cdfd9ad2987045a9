package transit

import (
	"context"
	"fmt"
	"net/http"
)

// Audit says on whose behalf requests are made, for Vault's audit log. Each field
// that is not empty travels as one request header; Vault writes the header to its
// audit devices once it is registered there, see [AuditHeaders]. The headers grant
// nothing: Vault decides by the token alone.
type Audit struct {
	Namespace, Pod, PodUID, ServiceAccount string // of the pod that a mount is for
	Secret, Class                          string // what it mounts
	Node                                   string // where the provider runs
	RequestID                              string // one for each mount

	RunID string // one for each run of the rotator or of a command
	Verb  string // what runs: "rotator", or the command's name
}

// auditHeader is one header and its value for an Audit.
type auditHeader struct{ name, value string }

// headers returns all headers, with an empty value for those that are not sent.
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

// AuditHeaders returns the names of all headers that an [Audit] may set. Vault
// writes a header to its audit devices only if
// sys/config/auditing/request-headers/NAME exists.
func AuditHeaders() []string {
	var names []string
	for _, h := range (Audit{}).headers() {
		names = append(names, h.name)
	}
	return names
}

// maxAuditValue is the length of the longest name in Kubernetes.
const maxAuditValue = 253

// check returns an error for a value that must not become a header. A line break
// would add headers of somebody else's choice, and proxies differ in what they make
// of spaces, commas and other encodings than ASCII.
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

// SetHeaders adds the headers to those of one request, for requests that do not go
// through this package. The values must be safe: names, or made for the purpose.
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
// logins and redirected requests included. A value that is not safe as a header
// fails the request before anything is sent.
//
// A login that several callers of a [LoginSource] wait for carries the headers of
// the caller that started it.
func WithAudit(ctx context.Context, a Audit) context.Context {
	return context.WithValue(ctx, auditKey{}, a)
}

// AuditFrom returns what WithAudit put into the context; the zero Audit without.
func AuditFrom(ctx context.Context) Audit {
	a, _ := ctx.Value(auditKey{}).(Audit)
	return a
}
