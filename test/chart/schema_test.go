package chart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSchemaOfItsOwn: a value without its description or default, and a part that
// would take a mistyped value, do not pass.
func TestSchemaOfItsOwn(t *testing.T) {
	const good = `{"type": "object", "additionalProperties": false, "properties": {
  "global": {"type": "object"},
  "part": {"description": "A part.", "type": "object", "additionalProperties": false, "properties": {
    "value": {"description": "A value.", "type": "string", "default": ""}
  }}
}}`
	for _, test := range []struct{ name, from, to, want string }{
		{"as it should be", "", "", ""},
		{"no description", `"description": "A value.", `, "", "part.value has no description"},
		{"no default", `, "default": ""`, "", "part.value must have either properties or a default"},
		{"both", `"A part.",`, `"A part.", "default": {},`, "part must have either properties or a default"},
		{"anything goes at the top", `{"type": "object", "additionalProperties": false`, `{"type": "object"`, "values may have properties"},
		{"anything goes in a part", `"A part.", "type": "object", "additionalProperties": false`, `"A part.", "type": "object"`, "values.part may have properties"},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, "values.schema.json"), []byte(strings.Replace(good, test.from, test.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			values, err := ReadSchema(folder)
			if test.want == "" {
				if err != nil || len(values) != 1 || len(values[0].Properties) != 1 || values[0].Properties[0].Path != "part.value" {
					t.Errorf("%+v, %v", values, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("it says %v, want %q", err, test.want)
			}
		})
	}
}
