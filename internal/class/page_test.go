package class

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPage verifies that docs/reference/parameters.md has the parameters and the fields of objects, in order, with the
// required ones marked.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/parameters.md")
	if err != nil {
		t.Fatal(err)
	}
	params, fields, ok := strings.Cut(string(text), "\n## Fields of `objects`\n")
	if !ok {
		t.Fatal("the page has no section on objects")
	}
	fields, _, _ = strings.Cut(fields, "\n## Limits\n")
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (.*?) \\|")
	rows := func(text string) (rows [][2]string) {
		for _, m := range row.FindAllStringSubmatch(text, -1) {
			required := ""
			if m[2] == "required" {
				required = m[2]
			}
			rows = append(rows, [2]string{m[1], required})
		}
		return rows
	}
	var want [][2]string
	for _, p := range parameters {
		required := ""
		if p.required {
			required = "required"
		}
		want = append(want, [2]string{p.name, required})
	}
	if diff := cmp.Diff(want, rows(params)); diff != "" {
		t.Errorf("parameters (-code +page):\n%s", diff)
	}
	want = nil
	for _, f := range objectFields {
		want = append(want, [2]string{f.name, map[bool]string{true: "required"}[f.name == "objectName"]})
	}
	if diff := cmp.Diff(want, rows(fields)); diff != "" {
		t.Errorf("fields (-code +page):\n%s", diff)
	}
}
