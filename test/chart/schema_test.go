package chart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadSchema: a value without a description or a default is an error, and so is an object that accepts a mistyped
// value or requires one.
func TestReadSchema(t *testing.T) {
	const valid = `{"type": "object", "additionalProperties": false, "properties": {
  "global": {"description": "Of all charts.", "type": "object", "properties": {
    "registry": {"description": "A registry.", "type": "string", "default": ""}
  }},
  "part": {"description": "A part.", "type": "object", "additionalProperties": false, "properties": {
    "value": {"description": "A value.", "type": "string", "default": ""}
  }}
}}`
	for _, test := range []struct{ name, old, new, want string }{
		{"valid", "", "", ""},
		{"no description", `"description": "A value.", `, "", "part.value has no description"},
		{"no default", `"A value.", "type": "string", "default": ""`, `"A value."`, "part.value must have either"},
		{"properties and default", `"A part.",`, `"A part.", "default": {},`,
			"part must have either properties or a default"},
		{"additional values", `{"type": "object", "additionalProperties": false`, `{"type": "object"`,
			"values allows additional properties"},
		{"additional values in an object", `"A part.", "type": "object", "additionalProperties": false`,
			`"A part.", "type": "object"`, "values.part allows additional properties"},
		{"required value", `"A part.",`, `"A part.", "required": ["value"],`, "values.part has required properties"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			text := strings.Replace(valid, test.old, test.new, 1)
			if err := os.WriteFile(filepath.Join(dir, "values.schema.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			values, err := ReadSchema(dir)
			if test.want == "" {
				if err != nil || len(values) != 2 || values[0].Properties[0].Path != "global.registry" ||
					values[1].Properties[0].Path != "part.value" {
					t.Errorf("values %+v, error %v", values, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
