package edit

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The program that wrote an entry last is named, and no other one.
func TestWrittenBy(t *testing.T) {
	fields := func(manager string, at int64, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Time: &metav1.Time{Time: time.Unix(at, 0)},
			FieldsV1: metav1.NewFieldsV1(fields)}
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{
		fields("apply", 60, `{"f:data":{".":{},"f:a":{},"f:b":{}}}`),
		fields("edit", 120, `{"f:data":{"f:a":{}}}`),
		fields("rotate", 180, `{"f:metadata":{"f:labels":{"f:a":{}}}}`),
		fields("broken", 240, `[]`),
		{Manager: "empty"},
	}}}
	for entry, want := range map[string]string{
		"a": " (by edit at 1970-01-01T00:02:00Z)", "b": " (by apply at 1970-01-01T00:01:00Z)", "c": "",
	} {
		if got := writtenBy(s, entry); got != want {
			t.Errorf("%s: %q, want %q", entry, got, want)
		}
	}
	if got := writtenBy(nil, "a"); got != "" {
		t.Errorf("a manifest: %q", got)
	}
}

// The hint names the flag with which an editor waits, unless it is set.
func TestWaitHint(t *testing.T) {
	for command, want := range map[string]string{
		"code":                  "code --wait",
		"code -n":               "code --wait -n",
		"/usr/bin/subl":         "/usr/bin/subl --wait",
		"kate":                  "kate --block",
		"gvim -p":               "gvim -f -p",
		"code --wait":           "",
		"code -w":               "",
		"vi":                    "",
		"sh -c 'code \"$1\"' x": "",
		"":                      "",
	} {
		if got := waiting(command); got != want {
			t.Errorf("%q: %q, want %q", command, got, want)
		}
	}
}
