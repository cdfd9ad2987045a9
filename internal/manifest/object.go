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

// eachObject calls found for an object, or for each object of a list. The items of a
// SecretList need no kind.
func eachObject(n *yaml.Node, inSecretList bool, found func(*Object)) {
	if n.Kind != yaml.MappingNode {
		return
	}
	kind, items := text(child(n, "kind")), child(n, "items")
	if strings.HasSuffix(kind, "List") && items != nil && items.Kind == yaml.SequenceNode {
		for _, item := range items.Content {
			eachObject(item, kind == "SecretList", found)
		}
		return
	}
	o := &Object{APIVersion: text(child(n, "apiVersion")), Kind: kind, Line: n.Line, Root: Value{n}}
	if kind == "" && inSecretList {
		o.APIVersion, o.Kind = "v1", "Secret"
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

func text(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	return n.Value
}
