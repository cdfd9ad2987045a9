package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Replace returns the file with new ciphertext for the given entries, which
// must be the file's own. The file itself does not change.
func (f *File) Replace(texts map[*Entry][]byte) ([]byte, error) {
	return f.rewrite(plan{texts: texts})
}

// plan is what is to be done to a file.
type plan struct {
	texts   map[*Entry][]byte           // entries that get another text
	removed map[*Entry]bool             // entries that go
	added   *Secret                     // where more entries come
	more    map[string][]byte           // their texts
	to      *yaml.Node                  // their mapping
	content map[*yaml.Node][]*yaml.Node // what mappings will hold, if not what they do
}

// splice is a part of the file and what stands there instead.
type splice struct {
	start, end int
	text       string
}

// rewrite carries out a plan, with the splices that it takes beyond new texts.
func (f *File) rewrite(p plan, splices ...splice) ([]byte, error) {
	edits, err := f.edits(p)
	if err != nil {
		return nil, err
	}
	for _, e := range edits {
		splices = append(splices, splice{e.span.start, e.span.end, e.span.write(e.text)})
	}
	slices.SortStableFunc(splices, func(a, b splice) int { return cmp.Or(a.start-b.start, a.end-b.end) })
	var out bytes.Buffer
	end := 0
	for _, s := range splices {
		if s.start < end {
			return nil, errors.New("two values are in the same place")
		}
		out.Write(f.source[end:s.start])
		out.WriteString(s.text)
		end = s.end
	}
	out.Write(f.source[end:])
	if err := f.check(out.Bytes(), edits, p); err != nil {
		return nil,
			fmt.Errorf("nothing was written, as the result would not say what it should (%w): please report this, "+
				"with the manifest's layout", err)
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

// edits returns the scalars that get another text.
func (f *File) edits(p plan) ([]edit, error) {
	var edits []edit
	for _, s := range f.Secrets {
		oldest, touched := 0, false
		if s == p.added {
			for name, value := range p.more {
				version, err := ciphertext.Version(value)
				if err != nil {
					return nil, fmt.Errorf("%s: entry %q: its text %w", place(s), name, err)
				}
				if oldest == 0 || version < oldest {
					oldest = version
				}
				touched = true
			}
		}
		for _, e := range s.Entries {
			if p.removed[e] {
				touched = true
				continue
			}
			value, ok := p.texts[e]
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
	return edits, nil
}

// check reads the result and reports whether it is the file with what was to be
// changed, and nothing else.
func (f *File) check(result []byte, edits []edit, p plan) error {
	docs, err := documents(result)
	if err != nil {
		return err
	}
	if len(docs) != len(f.docs) {
		return errors.New("the number of documents differs")
	}
	c := checker{edited: map[*yaml.Node]edit{}, content: p.content}
	for _, e := range edits {
		c.edited[e.node] = e
	}
	for i := range docs {
		if err := c.same(f.docs[i], docs[i]); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	edited  map[*yaml.Node]edit
	content map[*yaml.Node][]*yaml.Node
}

func (c checker) same(was, is *yaml.Node) error {
	content, ok := c.content[was]
	if !ok {
		content = was.Content
	} else if len(content) == 0 && is.Kind == yaml.ScalarNode && is.Tag == "!!null" {
		return nil // the last line of a mapping is gone
	}
	added := was.Line == 0 && was.Kind == yaml.ScalarNode
	if was.Kind != is.Kind || was.Tag != is.Tag || !added && was.Style != is.Style || was.Anchor != is.Anchor ||
		len(content) != len(is.Content) {
		return fmt.Errorf("line %d", is.Line)
	}
	if e, ok := c.edited[was]; !ok || e.entry == nil {
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
	for i := range content {
		if err := c.same(content[i], is.Content[i]); err != nil {
			return err
		}
	}
	return nil
}
