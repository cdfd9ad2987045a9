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

// Replace returns the file with new ciphertext for the given entries of f. It does not
// change f.
func (f *File) Replace(texts map[*Entry][]byte) ([]byte, error) {
	return f.rewrite(plan{texts: texts})
}

// plan is the changes of a file.
type plan struct {
	texts   map[*Entry][]byte           // new texts of entries
	removed map[*Entry]bool             // entries to remove
	added   *Secret                     // the Secret with new entries
	more    map[string][]byte           // texts of the new entries
	to      *yaml.Node                  // mapping of the new entries
	content map[*yaml.Node][]*yaml.Node // new content of mappings that change
}

// splice replaces a part of the file.
type splice struct {
	start, end int
	text       string
}

// rewrite applies a plan and additional splices.
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
			return nil, errors.New("two values overlap")
		}
		out.Write(f.source[end:s.start])
		out.WriteString(s.text)
		end = s.end
	}
	out.Write(f.source[end:])
	if err := f.check(out.Bytes(), edits, p); err != nil {
		return nil, fmt.Errorf("nothing was written, as the result would have other changes (%w): please report this, with "+
			"the layout of the manifest", err)
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

// edits returns the scalars to change.
func (f *File) edits(p plan) ([]edit, error) {
	var edits []edit
	for _, s := range f.Secrets {
		oldest, changed := 0, false
		if s == p.added {
			for name, value := range p.more {
				version, err := ciphertext.Version(value)
				if err != nil {
					return nil, fmt.Errorf("%s: entry %q: its text %w", s, name, err)
				}
				if oldest == 0 || version < oldest {
					oldest = version
				}
				changed = true
			}
		}
		for _, e := range s.Entries {
			if p.removed[e] {
				changed = true
				continue
			}
			value, ok := p.texts[e]
			if !ok {
				value = e.Text
			}
			version, err := ciphertext.Version(value)
			if err != nil {
				return nil, fmt.Errorf("%s: entry %q: its new text %w", s, e.Name, err)
			}
			if oldest == 0 || version < oldest {
				oldest = version
			}
			if !ok {
				continue
			}
			at, err := f.locate(e.node)
			if err != nil {
				return nil, fmt.Errorf("line %d: %s: entry %q: %w", e.Line, s, e.Name, err)
			}
			changed = true
			edits = append(edits, edit{node: e.node, span: at, text: e.encode(value), entry: e, value: value})
		}
		if changed {
			if err := s.CheckMutable(); err != nil {
				return nil, err
			}
		}
		// A wrong hint misleads. A missing one, or one in a style that cannot be edited, is
		// not an error.
		if hint := strconv.Itoa(oldest); changed && s.hint != nil && s.hint.Value != hint {
			if at, err := f.locate(s.hint); err == nil && at.indent == "" {
				edits = append(edits, edit{node: s.hint, span: at, text: hint})
			}
		}
	}
	return edits, nil
}

// check parses the result and reports whether it has the planned changes and no others.
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

func (c checker) same(old, result *yaml.Node) error {
	content, ok := c.content[old]
	if !ok {
		content = old.Content
	} else if len(content) == 0 && result.Kind == yaml.ScalarNode && result.Tag == "!!null" {
		return nil // the last entry of a mapping was removed
	}
	added := old.Line == 0 && old.Kind == yaml.ScalarNode
	if old.Kind != result.Kind || old.Tag != result.Tag ||
		!added && old.Style != result.Style || old.Anchor != result.Anchor ||
		len(content) != len(result.Content) {
		return fmt.Errorf("line %d", result.Line)
	}
	if e, ok := c.edited[old]; !ok || e.entry == nil {
		want := old.Value
		if ok {
			want = e.text
		}
		if result.Value != want {
			return fmt.Errorf("line %d", result.Line)
		}
	} else if value, err := e.entry.decode(result.Value); err != nil || !bytes.Equal(value, e.value) {
		return fmt.Errorf("line %d: entry %q", result.Line, e.entry.Name)
	}
	for i := range content {
		if err := c.same(content[i], result.Content[i]); err != nil {
			return err
		}
	}
	return nil
}
