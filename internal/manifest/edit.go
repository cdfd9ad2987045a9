package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Edit returns the file with entries of one of its Secrets set to ciphertext and others
// removed. New entries follow the last one, in the same style. Comments stay, except those
// on the line of a removed entry. Edit does not change f.
func (f *File) Edit(s *Secret, set map[string][]byte, remove []string) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("line %d: %s: %w", s.Line, s, err)
	}
	p := plan{texts: map[*Entry][]byte{}, removed: map[*Entry]bool{}, more: map[string][]byte{},
		content: map[*yaml.Node][]*yaml.Node{}}
	existing := map[string]bool{}
	for _, e := range s.Entries { // an entry may be in data and in stringData
		existing[e.Name] = true
		if text, ok := set[e.Name]; ok {
			p.texts[e] = text
		}
		if slices.Contains(remove, e.Name) {
			p.removed[e] = true
		}
	}
	for _, name := range remove {
		if !existing[name] {
			return fail(fmt.Errorf("entry %q: it does not exist", name))
		}
	}
	for name, text := range set {
		if !existing[name] {
			p.added, p.more[name] = s, text
		}
	}
	if p.added != nil {
		if p.to = s.data; p.to == nil {
			p.to = s.string
		}
		if p.to == nil {
			return fail(errors.New(`it has neither data nor stringData: write "data: {}" in it first`))
		}
	}
	var splices []splice
	for _, m := range []*yaml.Node{s.data, s.string} {
		if m == nil {
			continue
		}
		more, err := f.editMapping(s, m, &p)
		if err != nil {
			return fail(err)
		}
		splices = append(splices, more...)
	}
	return f.rewrite(p, splices...)
}

// pair is an entry in its mapping.
type pair struct {
	*Entry
	start, end int // offsets of its name and of the end of its value
	err        error
}

// editMapping plans the changes of a mapping: its new content, and the splices.
func (f *File) editMapping(s *Secret, m *yaml.Node, p *plan) ([]splice, error) {
	var pairs []pair
	var content []*yaml.Node
	removed := 0
	for _, e := range s.Entries {
		if !slices.Contains(m.Content, e.node) {
			continue
		}
		if p.removed[e] {
			removed++
		} else {
			content = append(content, e.key, e.node)
		}
		one := pair{Entry: e}
		one.start, one.end, one.err = f.extent(e)
		if one.err != nil && p.removed[e] {
			return nil, fmt.Errorf("entry %q: %w", e.Name, one.err)
		}
		pairs = append(pairs, one)
	}
	var more []string
	if m == p.to {
		more = ciphertext.Entries(p.more)
	}
	if removed == 0 && len(more) == 0 {
		return nil, nil
	}
	var fresh []*yaml.Node
	for _, name := range more {
		e := Entry{Encoded: m == s.data}
		for _, value := range []string{name, e.encode(p.more[name])} {
			// Line 0 marks a node that is not from the file.
			fresh = append(fresh, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value})
		}
	}
	if len(pairs) > 0 && pairs[len(pairs)-1].err != nil {
		p.content[m] = append(fresh, content...) // the end of the last entry is unknown
	} else {
		p.content[m] = append(content, fresh...)
	}
	if m.Style&yaml.FlowStyle != 0 {
		return f.editFlow(s, m, pairs, more, p)
	}
	return f.editBlock(s, m, pairs, more, p)
}

// extent returns the offsets of an entry: from its name to the end of its value, with the
// quotes.
func (f *File) extent(e *Entry) (start, end int, err error) {
	start, ok := f.offset(e.key.Line, e.key.Column)
	if !ok {
		return 0, 0, errLost
	}
	at, err := f.locate(e.node)
	if err != nil {
		return 0, 0, err
	}
	end = at.end
	if e.node.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		end++
	}
	return start, end, nil
}

// editBlock edits entries on separate lines.
func (f *File) editBlock(s *Secret, m *yaml.Node, pairs []pair, more []string, p *plan) ([]splice, error) {
	var splices []splice
	for _, one := range pairs {
		if !p.removed[one.Entry] {
			continue
		}
		line := f.lines[one.key.Line-1]
		if strings.TrimSpace(string(f.source[line:one.start])) != "" {
			return nil, fmt.Errorf("entry %q: it does not begin its line: write it as NAME: VALUE to remove it", one.Name)
		}
		splices = append(splices, splice{start: line, end: f.lineEnd(one.end)})
	}
	if len(more) == 0 {
		return splices, nil
	}
	last := pairs[len(pairs)-1]
	at := f.lines[pairs[0].key.Line-1] // before the first
	if last.err == nil {
		at = f.lineEnd(last.end)
	}
	start, ok := f.offset(last.key.Line, last.key.Column)
	if !ok {
		return nil, errLost
	}
	indent := string(f.source[f.lines[last.key.Line-1]:start])
	if strings.Trim(indent, " ") != "" {
		return nil, errLost
	}
	var b strings.Builder
	if at > 0 && !bytes.HasSuffix(f.source[:at], []byte("\n")) && !bytes.HasSuffix(f.source[:at], []byte("\r")) {
		b.WriteString(f.newline())
	}
	for _, name := range more {
		e := Entry{Name: name, Encoded: m == s.data}
		b.WriteString(indent + writeName(name, last.key.Style) + ": " + writeValue(e.encode(p.more[name]), last.node.Style) +
			f.newline())
	}
	return append(splices, splice{at, at, b.String()}), nil
}

// editFlow edits entries between braces, such as those of JSON.
func (f *File) editFlow(s *Secret, m *yaml.Node, pairs []pair, more []string, p *plan) ([]splice, error) {
	for _, one := range pairs {
		if one.err != nil {
			return nil, fmt.Errorf("entry %q: %w", one.Name, one.err)
		}
	}
	kept := -1 // the last entry that stays
	for i, one := range pairs {
		if !p.removed[one.Entry] {
			kept = i
		}
	}
	var splices []splice
	for i := 0; i < kept; i++ {
		if p.removed[pairs[i].Entry] {
			splices = append(splices, splice{start: pairs[i].start, end: pairs[i+1].start})
		}
	}
	switch {
	case kept < 0 && len(pairs) > 0:
		splices = append(splices, splice{start: pairs[0].start, end: pairs[len(pairs)-1].end})
	case kept < len(pairs)-1:
		splices = append(splices, splice{start: pairs[kept].end, end: pairs[len(pairs)-1].end})
	}
	for _, one := range splices {
		if bytes.ContainsAny(f.source[one.start:one.end], "#") {
			return nil, errors.New("there is a comment between its entries: put them on separate lines to remove one")
		}
	}
	if len(more) == 0 {
		return splices, nil
	}
	open, ok := f.offset(m.Line, m.Column)
	if !ok || f.source[open] != '{' {
		return nil, errLost
	}
	at, between, colon, style, keyStyle := 0, " ", ": ", yaml.Style(0), yaml.Style(0)
	if len(pairs) == 0 {
		at = open + 1
		if f.isJSON() {
			style, keyStyle = yaml.DoubleQuotedStyle, yaml.DoubleQuotedStyle
		}
	} else {
		last := pairs[len(pairs)-1]
		at, style, keyStyle = last.end, last.node.Style, last.key.Style
		// Separate new entries as the last one is separated from the previous one.
		gap := string(f.source[open+1 : last.start])
		if len(pairs) > 1 {
			gap = string(f.source[pairs[len(pairs)-2].end:last.start])
			gap = gap[strings.IndexByte(gap, ',')+1:]
		}
		if strings.TrimSpace(gap) == "" && (gap != "" || keyStyle == yaml.DoubleQuotedStyle) {
			between = gap
		}
		if strings.HasPrefix(string(f.source[last.start:last.end]), `"`+last.Name+`":"`) {
			colon = ":"
		}
	}
	var b strings.Builder
	for i, name := range more {
		if i > 0 || kept >= 0 {
			b.WriteString("," + between)
		}
		e := Entry{Name: name, Encoded: m == s.data}
		b.WriteString(writeName(name, keyStyle) + colon + writeValue(e.encode(p.more[name]), style))
	}
	return append(splices, splice{at, at, b.String()}), nil
}

// lineEnd returns the offset of the line after an offset.
func (f *File) lineEnd(offset int) int {
	for _, line := range f.lines {
		if line > offset {
			return line
		}
	}
	return len(f.source)
}

// newline returns the line ending of the file.
func (f *File) newline() string {
	if i := bytes.IndexByte(f.source, '\n'); i > 0 && f.source[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

func (f *File) isJSON() bool { return isJSON(f.source) }

func isJSON(source []byte) bool {
	text := bytes.TrimSpace(bytes.TrimPrefix(source, []byte(bom)))
	return len(text) > 0 && text[0] == '{'
}

// plain matches names that are strings in YAML without quotes, except for reserved words.
var plain = regexp.MustCompile(`^[A-Za-z_][-._A-Za-z0-9]*$`)

var reserved = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

// writeName returns the name of an entry, quoted if needed.
func writeName(name string, like yaml.Style) string {
	if like&yaml.DoubleQuotedStyle == 0 && plain.MatchString(name) && !slices.Contains(reserved, strings.ToLower(name)) {
		return name
	}
	return `"` + name + `"`
}

// writeValue returns ciphertext or base64, which contain no quotes, in a style.
func writeValue(text string, like yaml.Style) string {
	switch {
	case like&yaml.DoubleQuotedStyle != 0:
		return `"` + text + `"`
	case like&yaml.SingleQuotedStyle != 0:
		return `'` + text + `'`
	}
	return text
}

// Append returns the file with another document, which must be YAML that ends in a
// newline. A JSON file has one object only.
func (f *File) Append(document []byte) ([]byte, error) {
	if f.isJSON() {
		return nil, errors.New("it is JSON, which has one object: add the Secret to another file")
	}
	more, err := documents(document)
	if err != nil {
		return nil, err
	}
	out := bytes.Clone(f.source)
	if len(f.docs) > 0 {
		if !bytes.HasSuffix(out, []byte("\n")) {
			out = append(out, f.newline()...)
		}
		out = append(out, "---"+f.newline()...)
	}
	out = append(out, strings.ReplaceAll(string(document), "\n", f.newline())...)
	want := *f
	want.docs = append(slices.Clip(f.docs), more...)
	if err := want.check(out, nil, plan{}); err != nil {
		return nil, fmt.Errorf("nothing was written, as the result would have other changes (%w): end the file with a "+
			"newline, or add the Secret to another", err)
	}
	return out, nil
}
