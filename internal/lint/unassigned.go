package lint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/ciphertextscan"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// Unassigned is transit ciphertext in a manifest that no entry of a ciphertext Secret has: a copy, or
// ciphertext whose Secret is not recognized. It keeps its key version while entries are rewrapped.
type Unassigned struct {
	Line    int
	Version int    // the oldest on the line
	Message string // without the ciphertext

	object *manifest.Object // nil in a comment, and outside of objects
}

// FindUnassigned returns such ciphertext in a manifest, once for each line, in the order of lines.
func FindUnassigned(m *manifest.File) []Unassigned {
	byLine := map[int]Unassigned{}
	m.Texts(func(t manifest.Text) {
		for _, found := range ciphertextscan.Value([]byte(t.Value)) {
			known, ok := byLine[t.Line]
			if !ok || found.Version < known.Version {
				byLine[t.Line] = Unassigned{t.Line, found.Version, unassignedMessage(t, found.Version), t.Object}
			}
		}
	})
	var all []Unassigned
	for _, u := range byLine {
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b Unassigned) int { return cmp.Compare(a.Line, b.Line) })
	return all
}

// unassignedMessage names the location and what to do. It has names of objects and annotations only: the
// names of other fields may be values.
func unassignedMessage(t manifest.Text, version int) string {
	where, todo := "the file", "move it to an entry of a ciphertext Secret, or remove it"
	switch {
	case t.Comment:
		where, todo = "a comment", "remove it"
	case t.Object != nil && t.Object.Kind != "":
		where = t.Object.String()
	}
	switch {
	case t.IsLastApplied():
		where, todo = where+": annotation "+quote(t.Annotation), "remove the annotation, which kubectl writes again"
	case t.Annotation != "" && len(ciphertextscan.Value([]byte(t.Annotation))) == 0:
		where, todo = where+": annotation "+quote(t.Annotation), "remove it"
	case t.Plain:
		todo = "set the label " + ciphertext.LabelTransitKey + ", which makes it a ciphertext Secret, or remove it"
	}
	return fmt.Sprintf("%s has transit ciphertext of key version %d, and it is no entry of a ciphertext Secret: "+
		"no rotation renews it, and it is lost when that version is retired: %s", where, version, todo)
}

// checkUnassigned returns the findings about such ciphertext in a manifest.
func (f *File) checkUnassigned(m *manifest.File) (findings []Finding) {
	for _, u := range FindUnassigned(m) {
		finding := Finding{File: f.name, Line: u.Line, Severity: ruleUnassigned.Severity, Rule: ruleUnassigned.Name,
			Message: display.Line(u.Message)}
		if u.object != nil {
			finding.Kind, finding.Namespace, finding.Name = display.Name(u.object.Kind), display.Name(u.object.Namespace),
				display.Name(u.object.Name)
		}
		findings = append(findings, finding)
	}
	return findings
}
