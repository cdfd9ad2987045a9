package lint

import (
	"cmp"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// classObject is a SecretProviderClass for this provider.
type classObject struct {
	object
	class.Class
	lines map[string]int // of the parameters
}

func (f *File) class(n *yaml.Node) {
	root := pairs(n)
	spec := pairs(get(root, "spec"))
	if name, _ := text(get(spec, "provider")); name != class.Provider {
		return
	}
	c := &classObject{object: object{file: f, kind: "SecretProviderClass", line: n.Line}, lines: map[string]int{}}
	metadata := pairs(get(root, "metadata"))
	f.findings = append(f.findings, c.head(metadata)...)
	if c.name == "" {
		f.findings = append(f.findings, c.finding(ruleName, c.line, "", "metadata.name is missing"))
	}
	f.findings = append(f.findings, slices.Concat(c.duplicates(root), c.duplicates(spec))...)
	parameters := pairs(get(spec, "parameters"))
	f.findings = append(f.findings, c.duplicates(parameters)...)
	values := map[string]string{}
	for _, p := range parameters {
		value, ok := text(p.value)
		if !ok {
			f.findings = append(f.findings, c.notString(p.value, "parameter "+display.Name(p.name)))
		}
		values[p.name], c.lines[p.name] = value, p.value.Line
	}
	var errs field.ErrorList
	c.Class, errs = class.Parse(values, nil, "")
	for _, err := range errs {
		f.findings = append(f.findings, c.finding(ruleParameters, c.lineOf(err.Field), "", "%s", err))
	}
	f.classes = append(f.classes, c)
}

// lineOf returns the line of the parameter that a field belongs to.
func (c *classObject) lineOf(path string) int {
	name := path
	if unquoted, err := strconv.Unquote(path); err == nil {
		name = unquoted // an unknown parameter
	} else if i := strings.IndexAny(path, ".["); i >= 0 {
		name = path[:i]
	}
	if line, ok := c.lines[name]; ok {
		return line
	}
	return c.line
}

// check compares the class with its Secret. If there are several of that name, for other clusters, the
// class must fit one of them; findings are about the one with the fewest, and then the nearest.
func (c *classObject) check(files []*File, o Options) []Finding {
	if len(validation.IsDNS1123Subdomain(c.Secret)) > 0 {
		return nil // the rule parameters reports it
	}
	var all []*Secret
	for _, f := range files {
		for _, s := range f.Secrets {
			if s.name == c.Secret && mayShare(cmp.Or(c.namespace, o.Namespace), s.targetNamespace(o)) {
				all = append(all, s)
			}
		}
	}
	if len(all) == 0 {
		return []Finding{c.finding(ruleClassSecret, c.lineOf("secretName"), "",
			"its Secret %s is not among the files, so they cannot be compared", display.Name(c.Secret))}
	}
	slices.SortStableFunc(all, func(a, b *Secret) int { return c.distance(a) - c.distance(b) })
	best := c.compare(all[0])
	for _, s := range all[1:] {
		if other := c.compare(s); len(other) < len(best) {
			best = other
		}
	}
	return best
}

// mayShare reports whether two objects may be in the same namespace; an empty one is unknown.
func mayShare(a, b string) bool { return a == b || a == "" || b == "" }

// distance returns how far the file of a Secret is from that of the class.
func (c *classObject) distance(s *Secret) int {
	switch {
	case s.file == c.file:
		return 0
	case filepath.Dir(s.file.Name) == filepath.Dir(c.file.Name):
		return 1
	}
	return 2
}

func (c *classObject) compare(s *Secret) (findings []Finding) {
	if !s.Ours {
		return []Finding{c.finding(ruleClassDiffers, c.lineOf("secretName"),
			"", "its Secret %s (%s:%d) is not a ciphertext Secret: it has neither the type %s nor the label %s",
			display.Name(s.name), display.Name(s.file.Name), s.line, ciphertext.Type, ciphertext.LabelTransitKey)}
	}
	compare := func(parameter, inClass, inSecret string) {
		if inClass != "" && inSecret != "" && inClass != inSecret {
			findings = append(findings,
				c.finding(ruleClassDiffers, c.lineOf(parameter),
					"", "%s differs from that of its Secret %s (%s:%d): nothing would decrypt", parameter,
					display.Name(s.name), display.Name(s.file.Name), s.line))
		}
	}
	compare("transitKey", c.Key.Name, s.Meta.Labels[ciphertext.LabelTransitKey])
	compare("transitMount", c.Key.Mount, s.mount())
	compare("scope", string(c.Scope), string(s.scope()))
	for _, entry := range c.Entries() {
		if len(validation.IsConfigMapKey(entry)) == 0 &&
			!slices.ContainsFunc(s.Entries, func(e *Entry) bool { return e.Name == entry }) {
			findings = append(findings,
				c.finding(ruleClassObject, c.lineOf("objects"), entry, "its Secret %s (%s:%d) does not have it",
					display.Name(s.name), display.Name(s.file.Name), s.line))
		}
	}
	return findings
}
