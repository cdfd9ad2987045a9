// Package display escapes untrusted text for a terminal and for the log of a CI job: names in manifests, labels,
// annotations, messages of events, file names, responses of servers.
//
// Such text must not begin a new line, move the cursor, change earlier output, or be a command of a CI system. GitHub's
// runner executes lines that begin with "::", after any white space, and "##[" anywhere in a line; Azure Pipelines
// executes "##vso[" anywhere.
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

// maxName is the maximum length of a name in Kubernetes.
const maxName = 253

// Line returns the text as part of one line. It escapes characters that are not printable, and commands of CI systems,
// as in Go strings. Other text is unchanged.
func Line(s string) string {
	if isHarmless(s) {
		return s
	}
	var b strings.Builder
	start := true // only white space so far
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

// isHarmless reports whether the text needs no escape. It is the fast path.
func isHarmless(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '#' {
			return false
		}
	}
	return !strings.HasPrefix(strings.TrimLeft(s, " "), ":")
}

// Name is Line for a name, which it shortens to the maximum length in Kubernetes.
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

// ShellWord quotes a word for a POSIX shell, if necessary. It always uses single quotes: Quote of
// mvdan.cc/sh/v3/syntax may leave an exclamation mark outside of them, which an interactive bash expands.
func ShellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:,@=-"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// ShellWords joins words, quoted by ShellWord.
func ShellWords(words ...string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = ShellWord(word)
	}
	return strings.Join(quoted, " ")
}

// Lines escapes each line of a text with Line. Use it for a text that may have several lines, such as a joined error.
func Lines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = Line(line)
	}
	return strings.Join(lines, "\n")
}

// JSON returns an equal JSON document that is safe to print: it escapes in strings what encoding/json does not, and a
// terminal or a CI system would act on. It also works for YAML with all strings in double quotes.
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

// isHiddenInJSON reports whether a terminal would act on the character instead of showing it. Control characters below
// the space occur only between strings. Characters that need two escapes in JSON are not changed: no terminal acts on
// them, and YAML parsers do not read such escapes.
func isHiddenInJSON(r rune) bool { return r > '~' && r <= 0xffff && !unicode.IsPrint(r) }

// Strings returns a decoded JSON document with each string escaped by Line.
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

// Sprintf is fmt.Sprintf with each text in the arguments escaped by Line. So only the format can begin a line.
func Sprintf(format string, args ...any) string { return fmt.Sprintf(format, escape(args)...) }

// Fprintf is fmt.Fprintf with each text in the arguments escaped by Line. So only the format can begin a line.
func Fprintf(w io.Writer, format string, args ...any) (int, error) {
	return fmt.Fprintf(w, format, escape(args)...)
}

// Errorf is fmt.Errorf with each text in the arguments escaped by Line. It does not change errors in the arguments,
// which may have several lines.
func Errorf(format string, args ...any) error {
	escaped := escape(args)
	for i, arg := range args {
		if err, ok := arg.(error); ok {
			escaped[i] = err
		}
	}
	return fmt.Errorf(format, escaped...)
}

// Row writes the escaped cells of a table, separated by tabs, and a newline.
func Row(w io.Writer, cells ...string) (int, error) {
	escaped := make([]string, len(cells))
	for i, cell := range cells {
		escaped[i] = Line(cell)
	}
	return fmt.Fprintln(w, strings.Join(escaped, "\t"))
}

func escape(args []any) []any {
	escaped := make([]any, len(args))
	for i, arg := range args {
		switch a := arg.(type) {
		case string:
			escaped[i] = Line(a)
		case error:
			escaped[i] = Line(a.Error())
		case fmt.Stringer:
			escaped[i] = Line(a.String())
		default:
			escaped[i] = arg
			if v := reflect.ValueOf(arg); v.Kind() == reflect.String {
				escaped[i] = Line(v.String())
			}
		}
	}
	return escaped
}

// Writer returns a writer that escapes each line with Line. Each write must consist of whole lines. It is for the
// output of packages that do not escape.
func Writer(w io.Writer) io.Writer { return writer{w} }

type writer struct{ out io.Writer }

func (w writer) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.out, Lines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Quote quotes a text, of which it shows the first 120 bytes.
func Quote(s string) string { return fmt.Sprintf("%q", Clip(s, 120)) }

// Clip shortens a text to at most n bytes, at the end of a character, and marks that with an ellipsis.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
