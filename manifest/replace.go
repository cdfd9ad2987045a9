package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/secretmanager-io/secretmanager/ciphertext"

	"go.yaml.in/yaml/v3"
)

// Replace returns the file with new ciphertext for the given entries, which
// must be the file's own. The file itself does not change.
func (f *File) Replace(texts map[*Entry][]byte) ([]byte, error) {
	edits, err := f.edits(texts)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	end := 0
	for _, e := range edits {
		out.Write(f.source[end:e.span.start])
		out.WriteString(e.span.write(e.text))
		end = e.span.end
	}
	out.Write(f.source[end:])
	if err := f.check(out.Bytes(), edits); err != nil {
		return nil, fmt.Errorf("nothing was written, as the result would not say what it should (%w): please report this, with the manifest's layout", err)
	}
	return out.Bytes(), nil
}

// edit is one scalar and its new text.
type edit struct {
	node  *yaml.Node
	span  span
	text  string
	entry *Entry // nil: the version hint
	value []byte // of the entry
}

// edits returns what has to be changed, in the order of the file.
func (f *File) edits(texts map[*Entry][]byte) ([]edit, error) {
	var edits []edit
	for _, s := range f.Secrets {
		oldest, touched := 0, false
		for _, e := range s.Entries {
			value, ok := texts[e]
			if !ok {
				value = e.Text
			}
			version, err := ciphertext.Version(value)
			if err != nil {
				return nil, fmt.Errorf("%s: entry %q: its new text %w", place(s), e.Name, err)
			}
			if oldest == 0 || version < oldest {
				oldest = version
			}
			if !ok {
				continue
			}
			at, err := f.locate(e.node)
			if err != nil {
				return nil, fmt.Errorf("line %d: %s: entry %q: %w", e.Line, place(s), e.Name, err)
			}
			touched = true
			edits = append(edits, edit{node: e.node, span: at, text: e.encode(value), entry: e, value: value})
		}
		// A hint that is wrong misleads; one that is not there, or written in a
		// way that cannot be changed, is not worth a failure.
		if hint := strconv.Itoa(oldest); touched && s.hint != nil && s.hint.Value != hint {
			if at, err := f.locate(s.hint); err == nil && at.indent == "" {
				edits = append(edits, edit{node: s.hint, span: at, text: hint})
			}
		}
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.span.start - b.span.start })
	for i := 1; i < len(edits); i++ {
		if edits[i].span.start < edits[i-1].span.end {
			return nil, errors.New("two values are in the same place")
		}
	}
	return edits, nil
}

// check reads the result and reports whether it is the file with the new texts.
func (f *File) check(result []byte, edits []edit) error {
	docs, err := documents(result)
	if err != nil {
		return err
	}
	if len(docs) != len(f.docs) {
		return errors.New("the number of documents differs")
	}
	edited := map[*yaml.Node]edit{}
	for _, e := range edits {
		edited[e.node] = e
	}
	for i := range docs {
		if err := same(f.docs[i], docs[i], edited); err != nil {
			return err
		}
	}
	return nil
}

func same(was, is *yaml.Node, edited map[*yaml.Node]edit) error {
	if was.Kind != is.Kind || was.Tag != is.Tag || was.Style != is.Style || was.Anchor != is.Anchor || len(was.Content) != len(is.Content) {
		return fmt.Errorf("line %d", is.Line)
	}
	if e, ok := edited[was]; !ok || e.entry == nil {
		want := was.Value
		if ok {
			want = e.text
		}
		if is.Value != want {
			return fmt.Errorf("line %d", is.Line)
		}
	} else if value, err := e.entry.decode(is.Value); err != nil || !bytes.Equal(value, e.value) {
		return fmt.Errorf("line %d: entry %q", is.Line, e.entry.Name)
	}
	for i := range was.Content {
		if err := same(was.Content[i], is.Content[i], edited); err != nil {
			return err
		}
	}
	return nil
}
