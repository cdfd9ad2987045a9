package manifest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const bom = "\ufeff"

// span is the location of the text of a scalar in the source, without quotes or block
// header.
type span struct {
	start, end int
	// Of a block scalar: the indentation, and the ending and length of each line. Empty
	// for other scalars, which are on one line.
	indent   string
	newlines []string
	widths   []int
}

// Errors for values that cannot be replaced.
var (
	errAlias = errors.New("its value is an anchor, an alias or has a tag: write it out to rewrite it")
	errLines = errors.New("its value is spread over several lines: put it on one to rewrite it")
	errLost  = errors.New("its value cannot be located in the file: write it in quotes, on one line")
)

// locate finds the text of a scalar. The parser reports its start; its style determines
// the end.
func (f *File) locate(n *yaml.Node) (span, error) {
	if n.Kind != yaml.ScalarNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		return span{}, errAlias
	}
	start, ok := f.offset(n.Line, n.Column)
	if !ok {
		return span{}, errLost
	}
	rest := f.source[start:]
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return f.locateBlock(n, start)
	case n.Style&yaml.DoubleQuotedStyle != 0:
		if rest[0] != '"' {
			return span{}, errLost
		}
		for i := 1; i < len(rest); i++ {
			switch rest[i] {
			case '\\':
				if i++; i < len(rest) && (rest[i] == '\n' || rest[i] == '\r') {
					return span{}, errLines
				}
			case '\n', '\r':
				return span{}, errLines
			case '"':
				return span{start: start + 1, end: start + i}, nil
			}
		}
		return span{}, errLost
	case n.Style&yaml.SingleQuotedStyle != 0:
		// Ciphertext has no quotes to escape.
		if bytes.HasPrefix(rest, []byte("'"+n.Value+"'")) {
			return span{start: start + 1, end: start + 1 + len(n.Value)}, nil
		}
	case n.Value != "" && bytes.HasPrefix(rest, []byte(n.Value)):
		return span{start: start, end: start + len(n.Value)}, nil
	}
	return span{}, errLines
}

// locateBlock finds the lines below a "|" or ">".
func (f *File) locateBlock(n *yaml.Node, start int) (span, error) {
	content := strings.TrimRight(n.Value, "\r\n")
	want := strings.Split(content, "\n")
	line := n.Line // after the header, counted from 0
	// The header may be on a line below the key.
	if c := f.source[start]; c != '|' && c != '>' {
		return span{}, errLost
	}
	var s span
	for i, w := range want {
		if line+i >= len(f.lines) {
			return span{}, errLost
		}
		begin := f.lines[line+i]
		end := len(f.source)
		if line+i+1 < len(f.lines) {
			end = f.lines[line+i+1]
		}
		full := string(f.source[begin:end])
		trimmed := strings.TrimRight(full, "\r\n")
		indent := trimmed[:len(trimmed)-len(strings.TrimLeft(trimmed, " "))]
		if trimmed != indent+w || (i > 0 && indent != s.indent) {
			return span{}, errLines
		}
		if i == 0 {
			s = span{start: begin, indent: indent}
		}
		s.end = begin + len(trimmed)
		s.newlines, s.widths = append(s.newlines, full[len(trimmed):]), append(s.widths, len(w))
	}
	return s, nil
}

// write returns the text for the span, in lines as long as the old ones.
func (s span) write(text string) string {
	var b strings.Builder
	b.WriteString(s.indent)
	for i := 0; len(s.widths) > 1; i++ {
		width, newline := slices.Max(s.widths), s.newlines[0]
		if i < len(s.widths)-1 {
			width, newline = s.widths[i], s.newlines[i]
		}
		if len(text) <= width {
			break
		}
		b.WriteString(text[:width] + newline + s.indent)
		text = text[width:]
	}
	b.WriteString(text)
	return b.String()
}

// lineStarts returns the offsets of the lines, as the YAML parser counts them.
func lineStarts(source []byte) []int {
	starts := []int{0}
	if bytes.HasPrefix(source, []byte(bom)) {
		starts[0] = len(bom) // not a column for the parser
	}
	for i := 0; i < len(source); {
		r, n := utf8.DecodeRune(source[i:])
		i += n
		if r == '\r' && i < len(source) && source[i] == '\n' {
			continue // CRLF is one line ending
		}
		switch r {
		case '\n', '\r', '\u0085', '\u2028', '\u2029':
			starts = append(starts, i)
		}
	}
	return starts
}

// offset returns the offset of a line and a column, which count characters from 1.
func (f *File) offset(line, column int) (int, bool) {
	if line < 1 || line > len(f.lines) {
		return 0, false
	}
	at := f.lines[line-1]
	for ; column > 1 && at < len(f.source); column-- {
		_, n := utf8.DecodeRune(f.source[at:])
		at += n
	}
	return at, column == 1 && at < len(f.source)
}
