package lint

import (
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
	errs       field.ErrorList // of the parameters
	parameters map[string]string
	lines      map[string]int // of the parameters
}

func (f *File) readClass(o *manifest.Object) {
	spec := o.Root.Get("spec")
	if name, _ := spec.Get("provider").Text(); name != class.Provider {
		f.otherClasses = append(f.otherClasses, &object{file: f, Object: o})
		return
	}
	c := &classObject{object: object{file: f, Object: o}, parameters: map[string]string{}, lines: map[string]int{}}
	if c.Name == "" {
		f.findings = append(f.findings, c.finding(ruleName, c.Line, "", "metadata.name is missing"))
	}
	parameters := spec.Get("parameters").Pairs()
	problems := slices.Concat(o.Problems, manifest.Duplicates(spec.Pairs()), manifest.Duplicates(parameters))
	for _, p := range parameters {
		value, ok := p.Value.Text()
		if !ok {
			problems = append(problems, manifest.NotString("parameter "+display.Name(p.Name), p.Value))
		}
		c.parameters[p.Name], c.lines[p.Name] = value, p.Value.Line()
	}
	f.findings = append(f.findings, c.problems(problems)...)
	c.Class, c.errs = class.Parse(c.parameters, nil, "")
	f.classes = append(f.classes, c)
}

// check checks the parameters, and compares them with the Secret. If every volume of the class among the files changes
// its parameters or its Secret, the class is checked with each of them instead.
func (c *classObject) check(files []*File, o Options) []Finding {
	users, changed := 0, 0
	for _, f := range files {
		for _, v := range f.volumes {
			if c.mayBeNamed(v.class) && mayShare(c.targetNamespace(o), v.targetNamespace(o)) {
				users++
				if len(v.attributes) > 0 || len(c.errs) == 0 && v.delivers(&c.Class) {
					changed++
				}
			}
		}
	}
	if users > 0 && users == changed {
		return nil
	}
	m := mounted{object: &c.object, Class: c.Class, secret: c.Secret, lines: c.lines, line: c.Line}
	return append(m.parameterFindings(c.errs), m.check(files, o)...)
}

// mounted is what a class mounts by itself, or in a volume that changes its parameters.
type mounted struct {
	*object
	class.Class
	secret string         // the Secret whose entries are mounted
	lines  map[string]int // of the parameters
	line   int            // of the others
}

func (m *mounted) parameterFindings(errs field.ErrorList) (findings []Finding) {
	for _, err := range errs {
		findings = append(findings, m.finding(ruleParameters, m.lineOf(err.Field), "", "%s", err))
	}
	return findings
}

// lineOf returns the line of the parameter that a field belongs to.
func (m *mounted) lineOf(path string) int {
	name := path
	if unquoted, err := strconv.Unquote(path); err == nil {
		name = unquoted // an unknown parameter
	} else if i := strings.IndexAny(path, ".["); i >= 0 {
		name = path[:i]
	}
	if line, ok := m.lines[name]; ok {
		return line
	}
	return m.line
}

// check compares the parameters with the Secret. If there are several of that name, for other clusters, the
// parameters must fit one of them; findings are about the one with the fewest, and then the nearest.
func (m *mounted) check(files []*File, o Options) []Finding {
	if len(validation.IsDNS1123Subdomain(m.secret)) > 0 {
		return nil // the rule parameters reports it
	}
	var all []*secret
	for _, f := range files {
		for _, s := range slices.Concat(f.secrets, f.plain) {
			if s.mayBeNamed(m.secret) && mayShare(m.targetNamespace(o), s.targetNamespace(o)) {
				all = append(all, s)
			}
		}
	}
	if len(all) == 0 {
		return []Finding{m.finding(ruleClassSecret, m.lineOf("secretName"), "",
			"its Secret %s is not among the files, so they cannot be compared", display.Name(m.secret))}
	}
	slices.SortStableFunc(all, func(a, b *secret) int { return m.distance(&a.object) - m.distance(&b.object) })
	return fewest(all, m.compare)
}

// fewest returns the findings of the item that has the fewest.
func fewest[T any](all []T, check func(T) []Finding) []Finding {
	best := check(all[0])
	for _, item := range all[1:] {
		if other := check(item); len(other) < len(best) {
			best = other
		}
	}
	return best
}

// mayShare reports whether two objects may be in the same namespace; an empty one is unknown.
func mayShare(a, b string) bool { return a == b || a == "" || b == "" }

// distance returns how far the file of another object is from that of the object.
func (o *object) distance(other *object) int {
	switch {
	case other.file == o.file:
		return 0
	case filepath.Dir(other.file.name) == filepath.Dir(o.file.name):
		return 1
	}
	return 2
}

func (m *mounted) compare(s *secret) (findings []Finding) {
	entry := func(name string) *manifest.Entry {
		for _, e := range slices.Backward(s.parsed.Entries) { // stringData comes last and overrides data
			if e.Name == name {
				return e
			}
		}
		return nil
	}
	if slices.Contains(s.file.plain, s) {
		used := m.Entries()
		if used == nil {
			for _, e := range s.parsed.Entries {
				used = append(used, e.Name)
			}
		}
		notCiphertext := func(name string) bool { return entry(name) == nil || entry(name).Problem != nil }
		if len(used) > 0 && !slices.ContainsFunc(used, notCiphertext) {
			return nil // it can be mounted, and the rule unassigned reports that it is not rewrapped
		}
		return []Finding{m.finding(ruleClassDiffers, m.lineOf("secretName"),
			"", "its Secret %s is not a ciphertext Secret: it has neither the type %s nor the label %s",
			s.location(), ciphertext.Type, ciphertext.LabelTransitKey)}
	}
	compare := func(parameter, inClass, inSecret string) {
		if inClass != "" && inSecret != "" && inClass != inSecret {
			findings = append(findings, m.finding(ruleClassDiffers, m.lineOf(parameter), "",
				"%s differs from that of its Secret %s: nothing would decrypt", parameter, s.location()))
		}
	}
	compare("transitKey", m.Key.Name, s.parsed.Settings.Key.Name)
	compare("transitMount", m.Key.Mount, s.parsed.Settings.Key.Mount)
	compare("scope", string(m.Scope), string(s.scope()))
	for _, name := range m.Entries() {
		if len(validation.IsConfigMapKey(name)) == 0 && entry(name) == nil {
			findings = append(findings,
				m.finding(ruleClassObject, m.lineOf("objects"), name, "its Secret %s does not have it", s.location()))
		}
	}
	return findings
}
