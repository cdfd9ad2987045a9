package edit

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/entrytext"
	"github.com/secretmanager-io/secretmanager/test/hostile"
)

// A name cannot end the comment that contains it in the editor.
func TestEditHeadIsComment(t *testing.T) {
	e := &session{loaded: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: hostile.Text, Namespace: hostile.Text}},
		target: &inManifest{}}
	for _, reason := range []reopened{
		{}, {problems: []entrytext.Problem{{Line: 1, Text: hostile.Text}}},
		{err: display.Errorf("entry %s: no", hostile.Text)}, {err: &conflictError{names: []string{hostile.Text}}},
	} {
		head := e.head(reason)
		for _, mark := range []string{"", "\ufeff"} { // a byte order mark, which an editor may add
			if withoutHead(mark+head+"a: b\n") != "a: b\n" {
				t.Errorf("not all of it is a comment: %q", mark+head)
			}
		}
		for line := range strings.Lines(strings.TrimSuffix(head, "\n\n")) {
			if text := strings.TrimSuffix(line, "\n"); !strings.HasPrefix(text, "#") || hostile.Effect(text) != "" {
				t.Errorf("%s: %q", hostile.Effect(text), line)
			}
		}
	}
}
