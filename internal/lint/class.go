package lint

import (
	"cmp"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// classObject is a SecretProviderClass for this provider.
type classObject struct {
	object
	class.Class
	lines map[string]int // of the parameters
}

func (f *File) readClass(o *manifest.Object) {
	spec := o.Root.Get("spec")
	if name, _ := spec.Get("provider").Text(); name != class.Provider {
		return
	}
	c := &classObject{object: object{f, o}, lines: map[string]int{}}
	if c.Name == "" {
		f.findings = append(f.findings, c.finding(ruleName, c.Line, "", "metadata.name is missing"))
	}
	parameters := spec.Get("parameters").Pairs()
	problems := slices.Concat(o.Problems, manifest.Duplicates(spec.Pairs()), manifest.Duplicates(parameters))
	values := map[string]string{}
	for _, p := range parameters {
		value, ok := p.Value.Text()
		if !ok {
			problems = append(problems, manifest.NotString("parameter "+display.Name(p.Name), p.Value))
		}
		values[p.Name], c.lines[p.Name] = value, p.Value.Line()
	}
	f.findings = append(f.findings, c.problems(problems)...)
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
	return c.Line
}

// check compares the class with its Secret. If there are several of that name, for other clusters, the
// class must fit one of them; findings are about the one with the fewest, and then the nearest.
func (c *classObject) check(files []*File, o Options) []Finding {
	if len(validation.IsDNS1123Subdomain(c.Secret)) > 0 {
		return nil // the rule parameters reports it
	}
	var all []*secret
	for _, f := range files {
		for _, s := range slices.Concat(f.secrets, f.plain) {
			if s.Name == c.Secret && mayShare(cmp.Or(c.Namespace, o.Namespace), s.targetNamespace(o)) {
				all = append(all, s)
			}
		}
	}
	if len(all) == 0 {
		return []Finding{c.finding(ruleClassSecret, c.lineOf("secretName"), "",
			"its Secret %s is not among the files, so they cannot be compared", display.Name(c.Secret))}
	}
	slices.SortStableFunc(all, func(a, b *secret) int { return c.distance(a) - c.distance(b) })
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
func (c *classObject) distance(s *secret) int {
	switch {
	case s.file == c.file:
		return 0
	case filepath.Dir(s.file.name) == filepath.Dir(c.file.name):
		return 1
	}
	return 2
}

func (c *classObject) compare(s *secret) (findings []Finding) {
	if slices.Contains(s.file.plain, s) {
		return []Finding{c.finding(ruleClassDiffers, c.lineOf("secretName"),
			"", "its Secret %s is not a ciphertext Secret: it has neither the type %s nor the label %s",
			s.location(), ciphertext.Type, ciphertext.LabelTransitKey)}
	}
	compare := func(parameter, inClass, inSecret string) {
		if inClass != "" && inSecret != "" && inClass != inSecret {
			findings = append(findings, c.finding(ruleClassDiffers, c.lineOf(parameter), "",
				"%s differs from that of its Secret %s: nothing would decrypt", parameter, s.location()))
		}
	}
	compare("transitKey", c.Key.Name, s.parsed.Settings.Key.Name)
	compare("transitMount", c.Key.Mount, s.parsed.Settings.Key.Mount)
	compare("scope", string(c.Scope), string(s.scope()))
	for _, entry := range c.Entries() {
		if len(validation.IsConfigMapKey(entry)) == 0 &&
			!slices.ContainsFunc(s.parsed.Entries, func(e *manifest.Entry) bool { return e.Name == entry }) {
			findings = append(findings,
				c.finding(ruleClassObject, c.lineOf("objects"), entry, "its Secret %s does not have it", s.location()))
		}
	}
	return findings
}
