package provider

import (
	"encoding/json"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/podtoken"
	"github.com/secretmanager-io/secretmanager/transit"
)

// auditSchema is the version of the audit record. A new field does not change it; a removed field, or one with another
// meaning, does.
const auditSchema = "secretmanager.io/audit/v1"

// Outcomes of a mount.
const (
	outcomeDecrypted = "decrypted" // Vault decrypted every entry for this mount
	outcomeRepeated  = "repeated"  // the response came from the cache
	outcomeDenied    = "denied"    // Vault or Kubernetes refused the pod
	outcomeFailed    = "failed"
)

// auditMemory is the source of a cached response.
const auditMemory = "memory"

// auditRecord is one line of the audit log. docs/reference/audit-record.md and its JSON schema describe the fields. It
// contains names and versions, and never plaintext, ciphertext, tokens, or error texts, which may quote any of them.
type auditRecord struct {
	Schema    string    `json:"schema"`
	Time      time.Time `json:"time"`
	RequestID string    `json:"requestId"`
	// DecryptRequestID is the request whose response was repeated.
	DecryptRequestID string `json:"decryptRequestId,omitempty"`

	Outcome string `json:"outcome"`
	Reason  string `json:"reason"` // of the failure, or OK
	Source  string `json:"source"`

	Node           string `json:"node,omitempty"`
	Namespace      string `json:"namespace,omitempty"`
	Pod            string `json:"pod,omitempty"`
	PodUID         string `json:"podUid,omitempty"`
	ServiceAccount string `json:"serviceAccount,omitempty"`
	Class          string `json:"class,omitempty"`
	Secret         string `json:"secret,omitempty"`

	Key            string `json:"key,omitempty"` // mount/name
	VaultAddress   string `json:"vaultAddress,omitempty"`
	VaultNamespace string `json:"vaultNamespace,omitempty"`
	AuthMount      string `json:"authMount,omitempty"`
	Role           string `json:"role,omitempty"`

	Entries []auditEntry `json:"entries"`
}

// auditEntry is an entry of the Secret that the mount requests.
type auditEntry struct {
	Name string `json:"name"`
	// KeyVersion is read from the ciphertext. Vault decrypts it with no other version.
	KeyVersion int `json:"keyVersion"`
	// Decrypted reports whether Vault returned plaintext for it, even if the mount failed.
	Decrypted bool `json:"decrypted"`
}

// auditEntries returns the entries that a mount is about to decrypt.
func auditEntries(data map[string][]byte, entries []string) []auditEntry {
	all := make([]auditEntry, len(entries))
	for i, entry := range entries {
		version, _ := ciphertext.Version(data[entry]) // selectEntries has refused malformed entries
		all[i] = auditEntry{Name: entry, KeyVersion: version}
	}
	return all
}

// auditOutcome returns the outcome and the source of a mount. The reason is nil for success.
func auditOutcome(reason *failure.Reason, source string) (outcome, from string) {
	switch source {
	case sourceCache:
		from = auditMemory
	case sourceVault:
		from = sourceVault
	default:
		from = sourceNone
	}
	switch {
	case reason == nil && source == sourceCache:
		return outcomeRepeated, from
	case reason == nil:
		return outcomeDecrypted, from
	case reason.Code() == codes.PermissionDenied || reason.Code() == codes.Unauthenticated:
		return outcomeDenied, from
	}
	return outcomeFailed, from
}

// record returns the audit record of a mount whose response is not cached.
func (l *mountLog) record(reason *failure.Reason) auditRecord {
	rec := auditRecord{
		Schema: auditSchema, Time: l.started.UTC(), RequestID: l.id, Reason: nameOf(reason), Node: l.node,
		Entries: l.decrypting,
	}
	rec.Outcome, rec.Source = auditOutcome(reason, l.source)
	if rec.Entries == nil {
		rec.Entries = []auditEntry{} // an array in JSON, not null
	}
	r := l.request
	if r == nil {
		return rec
	}
	rec.Namespace, rec.Pod, rec.PodUID, rec.ServiceAccount = r.pod.namespace, r.pod.name, r.pod.uid, r.pod.serviceAccount
	rec.Class, rec.Secret = r.className, r.Secret
	if l.parsed {
		rec.Key, rec.Role = r.Key.Mount+"/"+r.Key.Name, r.Role
		rec.VaultAddress, rec.VaultNamespace, rec.AuthMount = r.VaultAddress, r.VaultNamespace, r.AuthMount
	}
	rec.clean()
	return rec
}

// clean removes invalid names, because a refused request can contain any text, and redacts values that look like a
// token.
func (rec *auditRecord) clean() {
	for _, f := range []struct {
		value *string
		valid func(string) bool
	}{
		{&rec.Namespace, isLabel}, {&rec.Pod, isSubdomain}, {&rec.PodUID, isUID}, {&rec.ServiceAccount, isSubdomain},
		{&rec.Class, isSubdomain}, {&rec.Secret, isSubdomain},
	} {
		if *f.value != "" && !f.valid(*f.value) {
			*f.value = ""
		}
	}
	for _, value := range []*string{&rec.Key, &rec.VaultNamespace, &rec.AuthMount, &rec.Role} {
		*value = failure.Redact(*value)
	}
}

func isLabel(s string) bool     { return len(validation.IsDNS1123Label(s)) == 0 }
func isSubdomain(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 }

// isUID reports whether s can be a UID: the API server generates UUIDs, and the UID of a static pod is a hash.
func isUID(s string) bool {
	return s != "" && len(s) <= 128 && !slices.ContainsFunc([]byte(s), func(c byte) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-')
	})
}

// line returns the line of the audit log for a mount with that reason. It is nil if the cached response was repeated
// before.
func (l *mountLog) line(reason *failure.Reason) []byte {
	if l.source != sourceCache || reason != nil {
		return l.record(reason).line()
	}
	var rec auditRecord
	if l.cachedRecord == "" || json.Unmarshal([]byte(l.cachedRecord), &rec) != nil {
		return nil
	}
	rec.Time, rec.RequestID, rec.DecryptRequestID = l.started.UTC(), l.id, rec.RequestID
	rec.Outcome, rec.Source = auditOutcome(reason, l.source)
	return rec.line()
}

// line encodes the record as a line of JSON.
func (rec auditRecord) line() []byte {
	text, err := json.Marshal(rec)
	if err != nil {
		return nil // impossible: a record has only texts, numbers and a valid time
	}
	return append(text, '\n')
}

// auditHeaders returns the headers that identify a mount in its requests to Vault. The claims are those of the token
// that logs in: Vault verifies them before it decrypts, and they equal the pod that the kubelet named.
func (r *request) auditHeaders(c podtoken.Claims, id, node string) transit.Audit {
	return transit.Audit{
		Namespace: c.Namespace, Pod: c.Pod, PodUID: c.PodUID, ServiceAccount: c.ServiceAccount,
		Secret: r.Secret, Class: r.className, Node: node, RequestID: id,
	}
}
