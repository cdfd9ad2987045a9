package doctor

import (
	"encoding/json"

	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
)

// Results of checks.
type (
	// State is the outcome of a check.
	State = result.State
	// Check is the result of a check.
	Check = result.Check
	// Alternative is one of several fixes.
	Alternative = result.Alternative
)

// The outcomes of a check.
const (
	OK      = result.OK
	Broken  = result.Broken
	Unknown = result.Unknown
)

// An operation is one of a JSON Patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// jsonPatch formats a patch. Its values are strings, booleans and token requests, which JSON can represent.
func jsonPatch(patch []operation) string {
	text, err := json.Marshal(patch)
	if err != nil {
		panic(err)
	}
	return string(text)
}
