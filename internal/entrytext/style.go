package entrytext

import (
	"bytes"
	"encoding/json"
	"strings"
)

// style is how a value is stored that is shown in another form: JSON on one line is shown indented, and lines that
// end as on Windows like others. The zero style shows a value as it is stored.
type style struct {
	bom    bool   // a byte order mark at the beginning
	crlf   bool   // lines end with CR LF
	json   bool   // JSON that is shown indented
	comma  string // in JSON on one line, with the space after it
	colon  string
	tabs   bool   // JSON indented with tabs
	suffix string // white space after JSON
}

const bom = "\ufeff"

// maxDepth bounds the depth of JSON that is indented, and so how much longer it becomes.
const maxDepth = 50

// shownAs returns the text for a value with its style. The text restores exactly to the value.
func shownAs(value string) (text string, s style) {
	text = value
	if rest, ok := strings.CutPrefix(text, bom); ok {
		text, s.bom = rest, true
	}
	if n := strings.Count(text, "\r\n"); n > 0 && n == strings.Count(text, "\n") && n == strings.Count(text, "\r") {
		text, s.crlf = strings.ReplaceAll(text, "\r\n", "\n"), true
	}
	text = s.indent(text)
	if s == (style{}) || !isBlock(text) {
		return value, style{}
	}
	if restored, ok := s.restore(text); !ok || restored != value {
		return value, style{}
	}
	return text, s
}

// indent returns the text of JSON that is written in a known style, indented. It returns other texts unchanged.
func (s *style) indent(text string) string {
	core := strings.TrimRight(text, " \t\n")
	if core == "" || core[0] != '{' && core[0] != '[' || depth(core) > maxDepth || !json.Valid([]byte(core)) {
		return text
	}
	candidates := []style{{json: true, comma: ",", colon: ":"}, {json: true, comma: ", ", colon: ": "},
		{json: true, comma: ",", colon: ": "}, {json: true, tabs: true}}
	for _, c := range candidates {
		if c.render(core) != core {
			continue
		}
		var b bytes.Buffer
		if json.Indent(&b, []byte(core), "", indent) != nil || b.String() == core {
			return text
		}
		s.json, s.comma, s.colon, s.tabs, s.suffix = true, c.comma, c.colon, c.tabs, text[len(core):]
		return b.String() + "\n"
	}
	return text
}

// depth returns how deep brackets are nested, or more if strings have brackets.
func depth(text string) (deepest int) {
	n := 0
	for i := range len(text) {
		switch text[i] {
		case '{', '[':
			n++
			deepest = max(deepest, n)
		case '}', ']':
			n--
		}
	}
	return deepest
}

// render returns valid JSON in the style, without the white space after it. Only white space between tokens changes.
func (s *style) render(text string) string {
	var b bytes.Buffer
	if s.tabs {
		if json.Indent(&b, []byte(text), "", "\t") != nil {
			return ""
		}
		return b.String()
	}
	if json.Compact(&b, []byte(text)) != nil {
		return ""
	}
	var out strings.Builder
	inString, escape := false, false
	for _, c := range b.Bytes() {
		switch {
		case escape:
			escape = false
		case inString && c == '\\':
			escape = true
		case c == '"':
			inString = !inString
		case !inString && c == ',':
			out.WriteString(s.comma)
			continue
		case !inString && c == ':':
			out.WriteString(s.colon)
			continue
		}
		out.WriteByte(c)
	}
	return out.String()
}

// restore returns the value for a text, which may have been edited. It returns false if it is not JSON and should be.
func (s *style) restore(text string) (value string, ok bool) {
	if s.json {
		if text = strings.TrimSpace(text); !json.Valid([]byte(text)) {
			return "", false
		}
		text = s.render(text) + s.suffix
	}
	if s.crlf {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if s.bom {
		text = bom + text
	}
	return text, true
}

// comment says how the value is stored.
func (s *style) comment() string {
	var parts []string
	switch {
	case s.json && s.tabs:
		parts = append(parts, "JSON, stored with tabs")
	case s.json:
		parts = append(parts, "JSON, stored on one line")
	}
	if s.crlf {
		parts = append(parts, "lines are stored with CR LF")
	}
	if s.bom {
		parts = append(parts, "stored with a byte order mark")
	}
	if len(parts) == 0 {
		return ""
	}
	return " # " + strings.Join(parts, "; ")
}
