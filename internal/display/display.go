// Package display makes text that somebody else wrote fit for a terminal and for
// the log of a CI job: names in manifests, labels, annotations, messages of events,
// file names, what a server answered.
//
// Such text must not begin a line of its own, move the cursor, change what is
// shown already, or be taken for a command by a CI system. GitHub's runner obeys
// lines that begin with "::", whatever space is before that, and "##[" anywhere in a
// line; Azure Pipelines obeys "##vso[" anywhere.
package display

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds names. Kubernetes takes none that is longer.
const maxName = 253

// Line returns the text as part of one line: what is not printable is escaped as in
// Go, and so is what a CI system would obey. Text without any of that is unchanged.
func Line(s string) string {
	if isHarmless(s) {
		return s
	}
	var b strings.Builder
	start := true // nothing but space so far
	previous := rune(0)
	for i, size := 0, 0; i < len(s); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == ':' && start, r == '#' && previous == '#':
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		start, previous = start && unicode.IsSpace(r), r
	}
	return b.String()
}

// isHarmless reports whether the text is plain, as nearly all of it is.
func isHarmless(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '#' {
			return false
		}
	}
	return !strings.HasPrefix(strings.TrimLeft(s, " "), ":")
}

// Name is Line for a name, of which no more is shown than Kubernetes would take.
func Name(s string) string {
	if len(s) > maxName {
		n := maxName
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	return Line(s)
}

// ShellWord quotes a word for a POSIX shell where it has to be.
func ShellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:,@=-"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Lines makes each line of a text fit, for what may have several, such as an error
// that joins others.
func Lines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = Line(line)
	}
	return strings.Join(lines, "\n")
}

// JSON returns an encoded document that says the same and is as harmless: what
// encoding/json leaves as it is in strings, and a terminal or a CI system acts on, is
// escaped as JSON has it. It does the same for YAML whose texts are in double quotes.
func JSON(text []byte) []byte {
	if !bytes.Contains(text, []byte("##")) && !bytes.ContainsFunc(text, isHiddenInJSON) {
		return text
	}
	var b bytes.Buffer
	previous := rune(0)
	for _, r := range string(text) {
		if r == '#' && previous == '#' || isHiddenInJSON(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
		previous = r
	}
	return b.Bytes()
}

// isHiddenInJSON reports whether a terminal would act on the character instead of
// showing it. Those below the space are between the strings alone. What JSON writes as
// two escapes stays: no terminal acts on any, and parsers of YAML do not read them.
func isHiddenInJSON(r rune) bool { return r > '~' && r <= 0xffff && !unicode.IsPrint(r) }

// Strings returns a decoded JSON document with each string in it made fit by Line.
func Strings(document any) any {
	switch d := document.(type) {
	case string:
		return Line(d)
	case []any:
		list := make([]any, len(d))
		for i, value := range d {
			list[i] = Strings(value)
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(d))
		for name, value := range d {
			object[Line(name)] = Strings(value)
		}
		return object
	}
	return document
}

// Error returns the error with its text as part of one line.
func Error(err error) error {
	if err == nil {
		return nil
	}
	return lineError{err}
}

type lineError struct{ error }

func (e lineError) Error() string { return Line(e.error.Error()) }
func (e lineError) Unwrap() error { return e.error }

// Sprintf formats as fmt.Sprintf does, with each text among the arguments made fit
// by Line. Only the format itself may begin a line.
func Sprintf(format string, args ...any) string { return fmt.Sprintf(format, fit(args)...) }

// Fprintf writes as fmt.Fprintf does, with each text among the arguments made fit by
// Line. Only the format itself may begin a line.
func Fprintf(w io.Writer, format string, args ...any) (int, error) {
	return fmt.Fprintf(w, format, fit(args)...)
}

// Errorf makes an error as fmt.Errorf does, with each text among the arguments made
// fit by Line. Errors among them stay as they are, with their lines.
func Errorf(format string, args ...any) error {
	clean := fit(args)
	for i, arg := range args {
		if err, ok := arg.(error); ok {
			clean[i] = err
		}
	}
	return fmt.Errorf(format, clean...)
}

// Row writes cells to a table: separated by tabs, and with a newline at the end.
func Row(w io.Writer, cells ...string) (int, error) {
	clean := make([]string, len(cells))
	for i, cell := range cells {
		clean[i] = Line(cell)
	}
	return fmt.Fprintln(w, strings.Join(clean, "\t"))
}

func fit(args []any) []any {
	clean := make([]any, len(args))
	for i, arg := range args {
		switch a := arg.(type) {
		case string:
			clean[i] = Line(a)
		case error:
			clean[i] = Line(a.Error())
		case fmt.Stringer:
			clean[i] = Line(a.String())
		default:
			clean[i] = arg
			if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
				clean[i] = Line(v.String())
			}
		}
	}
	return clean
}

// Writer makes fit what is written in whole lines by code that knows no better.
func Writer(w io.Writer) io.Writer { return writer{w} }

type writer struct{ to io.Writer }

func (w writer) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.to, Lines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
