// Package entrytext formats the plaintext entries of a Secret as YAML to edit, and parses what
// was edited.
package entrytext

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Document is the entries of a Secret as text.
type Document struct {
	Text string

	shown map[string]shown // the entries that are shown in another form than they are stored
}

// shown is an entry that is shown in another form than it is stored.
type shown struct {
	style
	text  string
	value []byte
}

// Format writes plaintext entries as a YAML mapping. It fails unless Parse returns exactly the same
// bytes: an entry that is not edited must not change.
func Format(entries map[string][]byte) (*Document, error) {
	// Blocks, of JSON with a line for each field, are the easiest to read, but do not hold every text. Quotes do.
	for _, as := range []notation{{blocks: true, styles: true}, {blocks: true}, {}} {
		d := &Document{shown: map[string]shown{}}
		var b strings.Builder
		for _, name := range ciphertext.Entries(entries) {
			b.WriteString(quoteUnlessPlain(name) + ": ")
			d.format(&b, name, entries[name], as)
			b.WriteString("\n")
		}
		d.Text = b.String()
		again, problems := d.Parse(d.Text)
		if len(problems) == 0 && maps.EqualFunc(again, entries, bytes.Equal) {
			return d, nil
		}
	}
	return nil, errors.New("the entries cannot be shown as text: set them with encrypt")
}

// notation is what a document uses.
type notation struct{ blocks, styles bool }

const indent = "  "

func (d *Document) format(b *strings.Builder, name string, value []byte, as notation) {
	text := string(value)
	switch {
	case !utf8.Valid(value):
		b.WriteString("!!binary |")
		for encoded := base64.StdEncoding.EncodeToString(value); encoded != ""; {
			n := min(76, len(encoded))
			b.WriteString("\n" + indent + encoded[:n])
			encoded = encoded[n:]
		}
		return
	case as.styles:
		var s style
		if text, s = shownAs(text); s != (style{}) {
			d.shown[name] = shown{s, text, value}
			writeBlock(b, text, s.comment())
			return
		}
	}
	switch {
	case as.blocks && isBlock(text):
		writeBlock(b, text, "")
	case strings.Contains(text, "\n"):
		// In quotes, with each line of the text on its own line.
		b.WriteString(`"`)
		for i, line := range strings.SplitAfter(text, "\n") {
			if line == "" {
				continue
			}
			if i > 0 {
				b.WriteString("\\\n" + indent)
				if line[0] == ' ' {
					b.WriteString(`\`) // or YAML reads it as indentation
				}
			}
			b.WriteString(escaped(line))
		}
		b.WriteString(`"`)
	default:
		b.WriteString(quoteUnlessPlain(text))
	}
}

// writeBlock writes a text as a block.
func writeBlock(b *strings.Builder, text, comment string) {
	b.WriteString("|")
	if strings.ContainsAny(text[:1], " \t\n") {
		b.WriteString(strconv.Itoa(len(indent))) // the first line does not show the indentation
	}
	if !strings.HasSuffix(text, "\n") {
		b.WriteString("-")
	}
	b.WriteString(comment)
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		b.WriteString("\n")
		if line != "" {
			b.WriteString(indent + line)
		}
	}
}

// isBlock reports whether a block can hold a text and shows it better than quotes: it has several lines, or characters
// that are escaped in quotes. Editors change some texts by themselves:
// they trim spaces at the end of a line and newlines at the end of the file, and replace tabs. In quotes, those are
// escaped or not at the end.
func isBlock(text string) bool {
	if !strings.ContainsAny(text, "\n\"\\") || strings.HasSuffix(text, "\n\n") || text == "\n" {
		return false
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimRightFunc(line, unicode.IsSpace) != line || strings.ContainsFunc(line, unprintable) {
			return false
		}
	}
	return true
}

func unprintable(r rune) bool { return !printable(r) }

// printable reports whether editors show a character and YAML reads it unchanged. YAML reads some
// as the end of a line, and ignores others.
func printable(r rune) bool {
	switch {
	case r == '\u2028', r == '\u2029', r == '\ufeff':
		return false
	case r < ' ', r >= 0x7f && r < 0xa0, r >= 0xfffe && r <= 0xffff:
		return false
	}
	return true
}

// escaped returns a text as it is written in double quotes.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '"', r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case printable(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

var (
	plainText = regexp.MustCompile(`^[A-Za-z0-9_/][-+.,@/=_A-Za-z0-9]*$`)
	// Booleans of YAML 1.1.
	booleans = []string{"y", "n", "yes", "no", "on", "off"}
)

// quoteUnlessPlain writes a text of one line.
func quoteUnlessPlain(text string) string {
	var n yaml.Node
	if plainText.MatchString(text) && !slices.Contains(booleans, strings.ToLower(text)) && len(text) < 200 &&
		yaml.Unmarshal([]byte(text), &n) == nil && len(n.Content) == 1 && n.Content[0].Tag == "!!str" {
		return text
	}
	return `"` + escaped(text) + `"`
}

// Problem is a problem of an edited text. It contains no values.
type Problem struct {
	Line int // from 1; 0: unknown
	Text string
}

var yamlError = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// Parse parses an edited text without a document that it was made from.
func Parse(text string) (map[string][]byte, []Problem) { return new(Document).Parse(text) }

// Parse parses the text of the document after it was edited. An entry that was not edited has its bytes, and one that
// was is in the style in which it was stored: minified JSON is minified again. A newline that is missing at the end
// makes no difference, because editors remove and add it.
func (d *Document) Parse(text string) (map[string][]byte, []Problem) {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n" // or a block at the end of the file ends without one
	}
	entries := map[string][]byte{}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	var doc, more yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return entries, nil
	}
	if err == nil {
		if err = decoder.Decode(&more); err == nil {
			return nil, []Problem{{more.Line, "a second document begins with ---: indent it if it is part of a value"}}
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		p := Problem{Text: "it is not YAML"}
		if bad, found := notText(text); found {
			p = bad
		} else if m := yamlError.FindStringSubmatch(err.Error()); m != nil {
			p.Line, _ = strconv.Atoi(m[1])
			if !strings.ContainsAny(m[2], "'\"`") { // the message quotes a value
				p.Text += ": " + m[2]
			}
		} else if strings.Contains(err.Error(), "unknown anchor") {
			p.Text += ": a value begins with *: put it in quotes"
		}
		return nil, []Problem{p}
	}
	var problems []Problem
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return entries, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, []Problem{{root.Line, "it is not a mapping: write NAME: VALUE"}}
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		fail := func(format string, args ...any) {
			problems = append(problems, Problem{key.Line, fmt.Sprintf(format, args...)})
		}
		if key.Kind != yaml.ScalarNode || key.Tag == "!!null" || key.Tag == "!!merge" {
			fail("the name of an entry is not a text")
			continue
		}
		if len(validation.IsConfigMapKey(key.Value)) > 0 {
			// The message leaves it out: it may be part of a value that is not indented.
			fail("the name of an entry can only have letters, digits, -, _ and .: indent it if it is part of a value")
			continue
		}
		if _, twice := entries[key.Value]; twice {
			fail("entry %q is duplicated", key.Value)
			continue
		}
		text, err := scalar(value)
		if err == nil {
			text, err = d.restore(key.Value, value, text)
		}
		if err != nil {
			fail("entry %q: %s", key.Value, err)
		}
		entries[key.Value] = text
	}
	return entries, problems
}

// restore returns the value of an entry as it is to be stored. Only a block is in the form in which entries are shown.
func (d *Document) restore(name string, n *yaml.Node, text []byte) ([]byte, error) {
	before, ok := d.shown[name]
	if !ok || n.Style&yaml.LiteralStyle == 0 {
		return text, nil
	}
	if string(text) == before.text {
		return before.value, nil
	}
	restored, ok := before.restore(string(text))
	if !ok {
		return nil, errors.New("it was JSON, and is not any more: correct it; a text that is not JSON goes in quotes")
	}
	return []byte(restored), nil
}

// notText finds the first character that is not valid in YAML, as the parser does not report its
// line.
func notText(text string) (p Problem, found bool) {
	line := 1
	for rest := text; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && size == 1:
			return Problem{line, "invalid UTF-8: write the value in base64, after !!binary"}, true
		case unicode.IsControl(r) && r != '\t' && r != '\r' && r != '\u0085':
			return Problem{line, fmt.Sprintf(`control character U+%04X: write it as \x%02x, in double quotes`, r, r)}, true
		}
		rest = rest[size:]
	}
	return Problem{}, false
}

// scalar returns the value of an entry. A number or a boolean is the text as it is written.
func scalar(n *yaml.Node) ([]byte, error) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return nil, errors.New("its value begins with * or &: put it in quotes")
	case n.Kind != yaml.ScalarNode:
		return nil, errors.New("its value is a list or a mapping: put it in quotes, or below a | and indented")
	case n.Tag == "!!null":
		return nil, errors.New(`it has no value: write "" for an empty one`)
	case n.Tag == "!!binary":
		value, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil {
			return nil, errors.New("its value is not base64, as !!binary says")
		}
		return value, nil
	case n.Style&yaml.TaggedStyle != 0 && n.Tag != "!!str":
		return nil, errors.New("its value begins with !: put it in quotes")
	}
	return []byte(n.Value), nil
}

// Describe returns the problem with its line, where first lines come before the text.
func (p Problem) Describe(first int) string {
	if p.Line == 0 {
		return p.Text
	}
	return fmt.Sprintf("line %d: %s", first+p.Line, p.Text)
}
