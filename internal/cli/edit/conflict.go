package edit

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// conflictError reports entries that others have changed too.
type conflictError struct {
	names  []string
	others []string // that others have changed, and the user has not
	theirs map[string][]byte
	merged map[string][]byte // with our values where both have changed an entry
	secret *corev1.Secret    // as others have left it
}

func (e *conflictError) Error() string {
	var names []string
	for _, name := range e.names {
		names = append(names, display.Name(name)+writtenBy(e.secret, name))
	}
	text := "nothing was written: others have changed the same entries: " + strings.Join(names, ", ")
	if len(e.others) > 0 {
		var others []string
		for _, name := range e.others {
			others = append(others, display.Name(name)+writtenBy(e.secret, name))
		}
		text += "; they have also changed: " + strings.Join(others, ", ")
	}
	return display.Line(text)
}

func (e *conflictError) Unwrap() error { return secretmanager.ErrChanged }

// writtenBy says which program wrote an entry of a Secret in the cluster, and when, if the API server knows. Who ran
// the program is only in the audit log.
func writtenBy(s *corev1.Secret, entry string) string {
	if s == nil {
		return ""
	}
	program, at := "", time.Time{}
	for _, m := range s.ManagedFields {
		var fields struct {
			Data map[string]json.RawMessage `json:"f:data"`
		}
		if m.FieldsV1 == nil || json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields) != nil {
			continue
		}
		_, wrote := fields.Data["f:"+entry]
		if wrote && m.Time != nil && m.Time.After(at) {
			program, at = m.Manager, m.Time.Time
		}
	}
	if program == "" {
		return "" // it was removed
	}
	return " (by " + display.Name(program) + " at " + at.UTC().Format(time.RFC3339) + ")"
}

// changedOnly returns the entries that differ between two states and are not among names.
func changedOnly(before, after map[string][]byte, names []string) (changed []string) {
	change := diff(before, after)
	for name := range change.Entries {
		changed = append(changed, name)
	}
	changed = slices.DeleteFunc(append(changed, change.Remove...),
		func(name string) bool { return slices.Contains(names, name) })
	slices.Sort(changed)
	return changed
}
