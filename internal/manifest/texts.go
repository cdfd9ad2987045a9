package manifest

import (
	"bytes"
	"encoding/base64"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Text is a part of a file that is no entry of a ciphertext Secret.
type Text struct {
	Line  int
	Value string // one line; never print it

	Object     *Object // nil in a comment, and outside of objects
	Annotation string  // the annotation of the object that has the text; empty if none has
	Plain      bool    // the object is a Secret, and not one of ciphertext
	Comment    bool
}

// Texts calls visit for all texts of the file: names, values and comments, except the values of the
// entries of ciphertext Secrets. A text that aliases repeat is visited once.
//
// It leaves out the data keys in the metadata of SOPS, which sops itself renews.
func (f *File) Texts(visit func(Text)) {
	w := textWalk{skipped: map[*yaml.Node]bool{}, objects: map[*yaml.Node]*Object{},
		annotations: map[*yaml.Node]string{}, plain: map[*Object]bool{}, visit: visit}
	for _, s := range f.Secrets {
		for _, e := range s.Entries {
			w.skipped[Value{e.node}.resolve()] = true
		}
	}
	for _, s := range f.Plain {
		w.plain[s.Object] = true
	}
	for _, o := range f.Objects {
		w.objects[o.Root.node] = o
		for _, p := range o.Root.Get("metadata", "annotations").Pairs() {
			w.annotations[p.Value.resolve()] = p.Name
		}
		for _, key := range o.Root.Get("sops", "hc_vault").List() {
			w.skipped[key.Get("enc").resolve()] = true
		}
	}
	for _, doc := range f.docs {
		w.node(doc, nil)
	}
	for i, start := range f.lines {
		end := len(f.source)
		if i+1 < len(f.lines) {
			end = f.lines[i+1]
		}
		if comment := commentIn(f.source[start:end]); comment != nil {
			visit(Text{Line: i + 1, Value: string(comment), Comment: true})
		}
	}
}

type textWalk struct {
	skipped     map[*yaml.Node]bool
	objects     map[*yaml.Node]*Object
	annotations map[*yaml.Node]string
	plain       map[*Object]bool
	visit       func(Text)
}

func (w *textWalk) node(n *yaml.Node, in *Object) {
	if w.skipped[n] {
		return
	}
	if o, ok := w.objects[n]; ok {
		in = o
	}
	if n.Kind == yaml.ScalarNode {
		w.scalar(n, in)
	}
	for _, child := range n.Content {
		w.node(child, in)
	}
}

func (w *textWalk) scalar(n *yaml.Node, in *Object) {
	t := Text{Line: n.Line, Object: in, Annotation: w.annotations[n], Plain: w.plain[in]}
	literal := n.Style&yaml.LiteralStyle != 0
	if joined := strings.Join(strings.Fields(n.Value), ""); joined != n.Value {
		// The API server decodes base64 that is wrapped in lines.
		if _, err := base64.StdEncoding.DecodeString(joined); err == nil {
			t.Value = joined
			w.visit(t)
		}
	}
	for line := range strings.SplitSeq(n.Value, "\n") {
		if literal {
			t.Line++ // after the header
		}
		t.Value = line
		w.visit(t)
	}
}

// commentIn returns the comment of a line, or nil. Text in quotes and in blocks may look like one.
func commentIn(line []byte) []byte {
	for i, c := range line {
		if c == '#' && (i == 0 || bytes.IndexByte([]byte(" \t"), line[i-1]) >= 0) {
			return line[i:]
		}
	}
	return nil
}

// IsLastApplied reports whether the text is in kubectl's copy of an earlier manifest.
func (t *Text) IsLastApplied() bool { return t.Annotation == ciphertext.AnnotationLastApplied }
