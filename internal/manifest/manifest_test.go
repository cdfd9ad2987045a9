package manifest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// textOf returns ciphertext of a version, unique for what.
func textOf(version int, what string) string {
	payload := append(bytes.Repeat([]byte{0xfb}, 28), what...)
	return fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(payload))
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

var placeholder = regexp.MustCompile(`\{\{(b64 )?(old|new) (\w+)( /\d+)?\}\}`)

// expand puts ciphertext into a layout: {{old x}} is one of version 1, or of
// version 12 if the layout is the expected result; {{new x}} is always of
// version 12; {{b64 old x}} is the same in base64, and {{b64 old x /40}} is
// base64 in lines of 40 characters, indented like the first. <1> is the version hint.
func expand(layout string, after bool) string {
	hint := map[bool]string{false: "1", true: "12"}[after]
	layout = strings.ReplaceAll(layout, "<1>", hint)
	for {
		m := placeholder.FindStringSubmatchIndex(layout)
		if m == nil {
			return layout
		}
		group := func(i int) string { return layout[max(m[2*i], 0):max(m[2*i+1], 0)] }
		version := 12
		if group(2) == "old" && !after {
			version = 1
		}
		value := textOf(version, group(3))
		if group(1) != "" {
			value = b64(value)
		}
		if width, err := strconv.Atoi(strings.TrimPrefix(group(4), " /")); err == nil {
			lineStart := strings.LastIndex(layout[:m[0]], "\n") + 1
			newline := "\n"
			if strings.HasSuffix(layout[:lineStart], "\r\n") {
				newline = "\r\n"
			}
			var lines []string
			for ; len(value) > width; value = value[width:] {
				lines = append(lines, value[:width])
			}
			value = strings.Join(append(lines, value), newline+layout[lineStart:m[0]])
		}
		layout = layout[:m[0]] + value + layout[m[1]:]
	}
}

// parse parses a manifest whose ciphertext can be changed.
func parse(source []byte) (*File, error) {
	f, err := Parse(source)
	if err == nil {
		err = f.Check()
	}
	return f, err
}

// renew replaces every entry of version 1 by one of version 12.
func renew(f *File) ([]byte, error) {
	texts := map[*Entry][]byte{}
	for _, s := range f.Secrets {
		for _, e := range s.Entries {
			if e.Version() == 1 {
				payload, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(e.Text), "vault:v1:"))
				texts[e] = []byte(textOf(12, string(payload[28:])))
			}
		}
	}
	return f.Replace(texts)
}

// layouts returns the texts of testdata/layouts by name.
func layouts(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/layouts/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no layouts: ", err)
	}
	texts := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(file)] = string(text)
	}
	return texts
}

// TestReplace uses the layouts in testdata: in each, {{old x}} gets a new text, and
// nothing else may change but the hint.
func TestReplace(t *testing.T) {
	for name, layout := range layouts(t) {
		t.Run(name, func(t *testing.T) {
			for _, variant := range []struct {
				name   string
				change func(string) string
			}{
				{"as it is", func(s string) string { return s }},
				{"CRLF", func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }},
				{"no newline at the end", func(s string) string { return strings.TrimRight(s, "\n") }},
				{"byte order mark", func(s string) string { return bom + s }},
			} {
				t.Run(variant.name, func(t *testing.T) {
					text := variant.change(layout)
					before, after := expand(text, false), expand(text, true)
					f, err := parse([]byte(before))
					if err != nil {
						t.Fatal(err)
					}
					got, err := renew(f)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(after, string(got)); diff != "" {
						t.Errorf("-want +got:\n%s", diff)
					}
					if got, err := f.Replace(nil); err != nil || string(got) != before {
						t.Errorf("replacing nothing: %v, changed: %t", err, string(got) != before)
					}
				})
			}
		})
	}
}
