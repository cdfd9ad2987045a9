package edit

import (
	"errors"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/entrytext"
)

// reopened is the reason why the editor is open again.
type reopened struct {
	problems []entrytext.Problem
	err      error
}

// head returns the comments above the entries: what to do, and what went wrong.
func (e *session) head(reason reopened) string {
	name := display.Name(e.loaded.Name)
	if e.loaded.Namespace != "" {
		name = display.Name(e.loaded.Namespace) + "/" + name
	}
	lines := []string{
		"The entries of Secret " + name + ", decrypted. Those that you change, add or remove",
		"are written when you save and quit; all others keep their ciphertext. To write nothing,",
		"quit without a change, or delete everything in the file.",
	}
	if m := e.target.managedBy(e.loaded); m.Reverts {
		lines = append(lines, "", "The Secret is managed by "+display.Line(m.Name)+", which will revert the change.")
	}
	switch {
	case reason.problems != nil:
		lines = append(lines, "", "Nothing has been written yet, as the text is invalid:")
		first := len(lines) + len(reason.problems) + 2 // number of lines before the entries
		for _, p := range reason.problems {
			lines = append(lines, "  "+display.Line(p.Describe(first)))
		}
	case reason.err != nil:
		lines = append(lines, "", "Nothing has been written yet:")
		for line := range strings.SplitSeq(reason.err.Error(), "\n") {
			lines = append(lines, "  "+display.Line(line))
		}
		lines = append(lines, e.theirs(reason.err)...)
	}
	lines = append(lines, "")
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(strings.TrimRight("# "+line, " ") + "\n")
	}
	return b.String() + "\n"
}

// theirs returns the values of others in a conflict.
func (e *session) theirs(err error) []string {
	conflict := (*conflictError)(nil)
	if !errors.As(err, &conflict) {
		return nil
	}
	lines := []string{"", "Your value is below, and will replace theirs, which is:"}
	for _, name := range conflict.names {
		value, found := conflict.theirs[name]
		if !found {
			lines = append(lines, "  "+display.Name(name)+": removed")
			continue
		}
		text := ""
		if shown, err := entrytext.Format(map[string][]byte{name: value}); err == nil {
			text = shown.Text
		} else {
			text = display.Name(name) + ": (cannot be shown)\n"
		}
		for line := range strings.Lines(text) {
			lines = append(lines, "  "+strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// withoutHead removes the comments at the beginning of a text. An editor may have added a byte order mark.
func withoutHead(text string) string {
	text = strings.TrimPrefix(text, "\ufeff")
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			break
		}
		text = rest
	}
	return text
}

// invalidText returns the error for a user who cannot be asked to fix the text.
func invalidText(problems []entrytext.Problem, first int) error {
	errs := []error{errors.New("nothing was written: the saved text is invalid")}
	for _, p := range problems {
		errs = append(errs, errors.New(p.Describe(first)))
	}
	return errors.Join(errs...)
}
