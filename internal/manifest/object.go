package manifest

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Object is a Kubernetes object in a file.
type Object struct {
	APIVersion, Kind string
	Namespace        string // empty if the manifest has none
	Name             string
	Line             int // first line, counted from 1
	Root             Value

	// Problems are those of its metadata; those of a Secret are also about the rest. Problems of an entry
	// with its value are in the entry.
	Problems []Problem
}

// Problem is a mistake in a manifest. It does not contain a value.
type Problem struct {
	Kind    ProblemKind
	Line    int
	Entry   string // empty if the problem is not about an entry
	Message string // follows the names of object and entry
}

// ProblemKind is the kind of a Problem.
type ProblemKind int

// The kinds of problems.
const (
	InvalidObject ProblemKind = iota // the API server would not accept it
	Duplicate
	Empty
	Plaintext
	NotBase64
	DoubleBase64
	Malformed
)

// String returns kind, namespace and name.
func (o *Object) String() string {
	switch {
	case o.Name == "":
		return o.Kind + " without a name"
	case o.Namespace == "":
		return o.Kind + " " + display.Name(o.Name)
	}
	return o.Kind + " " + display.Name(o.Namespace) + "/" + display.Name(o.Name)
}

// list is the list that an object is in. Its items may have no kind of their own.
type list struct{ apiVersion, kind string }

// eachObject calls found for an object, or for each object of a list, as kubectl does: a list is what
// has items, and a key may be merged or be an alias. A node that occurs several times is one object.
func eachObject(v Value, in list, seen map[*yaml.Node]bool, found func(*Object)) {
	n := v.resolve()
	if n.Kind != yaml.MappingNode || seen[n] {
		return
	}
	seen[n] = true
	o := &Object{Line: v.Line(), Root: Value{n}}
	// Without a string, no object is created.
	o.APIVersion, _ = o.Root.Get("apiVersion").Text()
	o.Kind, _ = o.Root.Get("kind").Text()
	if o.Kind == "" && strings.HasSuffix(in.kind, "List") {
		o.APIVersion, o.Kind = in.apiVersion, strings.TrimSuffix(in.kind, "List")
	}
	items := o.Root.Get("items")
	for _, item := range items.List() {
		eachObject(item, list{o.APIVersion, o.Kind}, seen, found)
	}
	if items.resolve() != nil && items.resolve().Kind == yaml.SequenceNode && strings.HasSuffix(o.Kind, "List") {
		return
	}
	o.readMetadata()
	found(o)
}

// readMetadata reads namespace and name.
func (o *Object) readMetadata() {
	metadata := o.Root.Get("metadata")
	o.Name = o.text("metadata.name", metadata.Get("name"))
	o.Namespace = o.text("metadata.namespace", metadata.Get("namespace"))
	o.Problems = append(o.Problems, Duplicates(metadata.Pairs())...)
	o.Problems = append(o.Problems, Duplicates(o.Root.Pairs())...)
}

func (o *Object) problem(line int, format string, args ...any) {
	o.Problems = append(o.Problems, Problem{Kind: InvalidObject, Line: line, Message: fmt.Sprintf(format, args...)})
}

// text returns the text of a field; empty, with a problem, if it is not a string.
func (o *Object) text(field string, v Value) string {
	s, ok := v.Text()
	if !ok {
		o.Problems = append(o.Problems, NotString(field, v))
	}
	return s
}

// NotString returns the problem of a field that is not a string.
func NotString(field string, v Value) Problem {
	return Problem{Kind: InvalidObject, Line: v.Line(), Message: field + " is not a string in YAML: write it in quotes"}
}

// Duplicates returns the problems of keys that occur several times in a mapping.
func Duplicates(all []Pair) (problems []Problem) {
	for _, p := range repeated(all) {
		problems = append(problems,
			Problem{Kind: InvalidObject, Line: p.Line, Message: fmt.Sprintf(`"%s" is duplicated`, display.Name(p.Name))})
	}
	return problems
}

// child returns the value of a key of a mapping, or nil. It does not follow aliases.
func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}
