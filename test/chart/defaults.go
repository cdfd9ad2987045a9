package chart

import (
	"encoding/json"
	"fmt"
)

// Defaults returns defaults.json of the chart: the default of each value by its path. It has no resources, because
// null removes them.
func Defaults(values []Value) (string, error) {
	defaults := map[string]any{}
	var add func(v Value) error
	add = func(v Value) error {
		for _, p := range v.Properties {
			if err := add(p); err != nil {
				return err
			}
		}
		if v.Default == nil || v.Name() == "resources" {
			return nil
		}
		var value any
		if err := v.Default.Decode(&value); err != nil {
			return fmt.Errorf("default of %s: %w", v.Path, err)
		}
		if value != nil {
			defaults[v.Path] = value
		}
		return nil
	}
	for _, v := range values {
		if err := add(v); err != nil {
			return "", err
		}
	}
	text, err := json.MarshalIndent(defaults, "", "  ")
	return string(text) + "\n", err
}
