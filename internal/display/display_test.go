package display

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
	"unicode"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "",
		"demo/matrix: 3 -> 4":  "demo/matrix: 3 -> 4",
		"größer als “2”":       "größer als “2”",
		`C:\Users "x"`:         `C:\Users "x"`,
		"a\nb\r\x1b[2Jc\td":    `a\nb\r\x1b[2Jc\td`,
		"\u009b31m\x7f\u0000":  `\u009b31m\x7f\x00`,
		"\x9b\xff":             `\x9b\xff`,
		"\u202etxt\u2028y":     `\u202etxt\u2028y`,
		"::error::x":           `\x3a:error::x`,
		"  ::error::x":         `  \x3a:error::x`,
		"\u3000::error::x":     `\u3000\x3a:error::x`,
		"a::error::x":          "a::error::x",
		"x ##[error]y":         `x #\x23[error]y`,
		"##vso[task.x]###":     `#\x23vso[task.x]#\x23\x23`,
		"# a comment, and # b": "# a comment, and # b",
	} {
		if got := Line(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
	if got := Name(strings.Repeat("é", 200)); len(got) > maxName+len("…") || !strings.HasSuffix(got, "é…") {
		t.Errorf("a long name: %q", got)
	}
}

// Obeyed reports what a terminal or a CI system would interpret in a line.
func obeyed(line string) string {
	switch {
	case strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "a character that is not printable"
	case strings.HasPrefix(strings.TrimSpace(line), "::"):
		return "a workflow command"
	case strings.Contains(line, "##["), strings.Contains(line, "##vso["):
		return "a logging command"
	}
	return ""
}

func TestWhateverIsWritten(t *testing.T) {
	evil := []string{"\n", "::", "##[", "##vso[", "\x1b", "\u009b", " ", "\u2028", "x", "\xff", ":", "#"}
	check := func(picks []uint8) bool {
		s := ""
		for _, p := range picks {
			s += evil[int(p)%len(evil)]
		}
		one := Line(s)
		if why := obeyed(one); why != "" {
			t.Logf("Line(%q) is %q: %s", s, one, why)
			return false
		}
		var b strings.Builder
		Fprintf(&b, "%s: %v\n", s, errors.New(s))
		if strings.Count(b.String(), "\n") != 1 || obeyed(strings.TrimSuffix(b.String(), "\n")) != "" {
			t.Logf("Fprintf of %q: %q", s, &b)
			return false
		}
		for line := range strings.SplitSeq(Lines(s), "\n") {
			if why := obeyed(line); why != "" {
				t.Logf("Lines(%q): %q: %s", s, line, why)
				return false
			}
		}
		return true
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 20_000}); err != nil {
		t.Error(err)
	}
}

func TestJSON(t *testing.T) {
	check := func(picks []uint8) bool {
		s := ""
		for _, p := range picks {
			s += []string{"\n", "::", "##[", "#", "\x1b", "\u009b", "\u2028", "x", "\\", "\"", "<", "\x7f"}[int(p)%12]
		}
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(map[string]string{"a": s}); err != nil {
			t.Fatal(err)
		}
		text := JSON(b.Bytes())
		var again map[string]string
		if err := json.Unmarshal(text, &again); err != nil || again["a"] != s {
			t.Logf("%q is %q after %q: %v", s, again["a"], text, err)
			return false
		}
		for line := range strings.Lines(string(text)) {
			if why := obeyed(strings.TrimSuffix(line, "\n")); why != "" {
				t.Logf("%q: %s", line, why)
				return false
			}
		}
		return true
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 5000}); err != nil {
		t.Error(err)
	}
	got := Strings(map[string]any{"a\n": []any{"b\nc", 1, nil}})
	if want := (map[string]any{`a\n`: []any{`b\nc`, 1, nil}}); !reflect.DeepEqual(got, want) {
		t.Errorf("Strings: %v", got)
	}
}

func TestFormats(t *testing.T) {
	type word string
	cause := errors.New("a\nb")
	if got := Sprintf("%s %v %v %d\n", word("x\ny"), cause, Error(cause), 3); got != `x\ny a\nb a\nb 3`+"\n" {
		t.Errorf("Sprintf: %q", got)
	}
	if err := Errorf("%s:\n%w", word("x\ny"), cause); err.Error() != `x\ny:`+"\na\nb" || !errors.Is(err, cause) {
		t.Errorf("Errorf: %q", err)
	}
	if err := Error(cause); !errors.Is(err, cause) || Error(nil) != nil {
		t.Errorf("Error: %v", err)
	}
	var b strings.Builder
	Row(&b, "a\tb", "c\nd")
	Writer(&b).Write([]byte("Warning: \x1b[m\n"))
	if got := b.String(); got != `a\tb`+"\t"+`c\nd`+"\n"+`Warning: \x1b[m`+"\n" {
		t.Errorf("Row and Writer: %q", got)
	}
}

func TestShellWord(t *testing.T) {
	for word, want := range map[string]string{
		"": "''", "auth/jwt/role/app-0": "auth/jwt/role/app-0", "a=b": "a=b", "a b": "'a b'",
		"$(id)": "'$(id)'", "x;id": "'x;id'", "it's": `'it'\''s'`, "`id`": "'`id`'", "~": "'~'",
		"it's!": `'it'\''s!'`, "!!": "'!!'",
	} {
		if got := ShellWord(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}
