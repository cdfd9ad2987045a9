package edit

import (
	"errors"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/entrytext"
)

// reopened is why the editor is open again.
type reopened struct {
	problems []entrytext.Problem
	err      error
}

// head is what stands above the entries, as comments: what to do, and what was
// wrong.
func (e *editing) head(reason reopened) string {
	place := display.Name(e.was.Name)
	if e.was.Namespace != "" {
		place = display.Name(e.was.Namespace) + "/" + place
	}
	lines := []string{
		"The entries of Secret " + place + ", decrypted. Those that you change, add or take",
		"out are written when you save and quit; all others keep their ciphertext. To write",
		"nothing, quit without a change, or leave nothing in the file.",
	}
	if by := managedBy(e.target, e.was); by != "" {
		lines = append(lines, "", "The Secret is kept as it is in Git by "+display.Line(by)+", which will undo this.")
	}
	switch {
	case reason.problems != nil:
		lines = append(lines, "", "Nothing has been written yet, as this cannot be read:")
		first := len(lines) + len(reason.problems) + 2 // the line that the entries begin on, less one
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

// theirs shows what others wrote where both changed something.
func (e *editing) theirs(err error) []string {
	clash := (*clashError)(nil)
	if !errors.As(err, &clash) {
		return nil
	}
	lines := []string{"", "Below is your value, which will be written over theirs. Theirs is:"}
	for _, name := range clash.names {
		value, there := clash.theirs[name]
		if !there {
			lines = append(lines, "  "+display.Name(name)+": taken out")
			continue
		}
		text, err := entrytext.Format(map[string][]byte{name: value})
		if err != nil {
			text = display.Name(name) + ": (cannot be shown)\n"
		}
		for line := range strings.Lines(text) {
			lines = append(lines, "  "+strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// withoutHead takes the comments off that the text begins with.
func withoutHead(text string) string {
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			break
		}
		text = rest
	}
	return text
}

// unreadable is the error for those who cannot be asked to mend it.
func unreadable(problems []entrytext.Problem, first int) error {
	errs := []error{errors.New("nothing was written: what was saved cannot be read")}
	for _, p := range problems {
		errs = append(errs, errors.New(p.Describe(first)))
	}
	return errors.Join(errs...)
}
