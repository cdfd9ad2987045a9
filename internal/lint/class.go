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
	classes "github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// class is a SecretProviderClass of ours.
type class struct {
	object
	classes.Class
	lines map[string]int // of the parameters
}

func (f *File) class(n *yaml.Node) {
	root := pairs(n)
	spec := pairs(get(root, "spec"))
	if name, _ := text(get(spec, "provider")); name != classes.Provider {
		return
	}
	c := &class{object: object{file: f, kind: "SecretProviderClass", line: n.Line}, lines: map[string]int{}}
	metadata := pairs(get(root, "metadata"))
	f.findings = append(f.findings, c.head(metadata)...)
	if c.name == "" {
		f.findings = append(f.findings, c.finding(ruleName, c.line, "", "metadata.name is missing"))
	}
	f.findings = append(f.findings, slices.Concat(c.doubled(root), c.doubled(spec))...)
	parameters := pairs(get(spec, "parameters"))
	f.findings = append(f.findings, c.doubled(parameters)...)
	values := map[string]string{}
	for _, p := range parameters {
		value, ok := text(p.value)
		if !ok {
			f.findings = append(f.findings, c.notText(p.value, "parameter "+display.Name(p.name)))
		}
		values[p.name], c.lines[p.name] = value, p.value.Line
	}
	var errs field.ErrorList
	c.Class, errs = classes.Parse(values, nil, "")
	for _, err := range errs {
		f.findings = append(f.findings, c.finding(ruleParameters, c.at(err.Field), "", "%s", err))
	}
	f.classes = append(f.classes, c)
}

// at returns the line of the parameter that a field belongs to.
func (c *class) at(path string) int {
	name := path
	if unquoted, err := strconv.Unquote(path); err == nil {
		name = unquoted // a parameter that does not exist
	} else if i := strings.IndexAny(path, ".["); i >= 0 {
		name = path[:i]
	}
	if line, ok := c.lines[name]; ok {
		return line
	}
	return c.line
}

// check holds the class against its Secret. There may be several of that name,
// for other clusters: then it has to fit one of them, and the nearest comes first.
func (c *class) check(files []*File, o Options) []Finding {
	if len(validation.IsDNS1123Subdomain(c.Secret)) > 0 {
		return nil // and parameters says so
	}
	var all []*Secret
	for _, f := range files {
		for _, s := range f.Secrets {
			if s.name == c.Secret && mayShare(cmp.Or(c.namespace, o.Namespace), s.in(o)) {
				all = append(all, s)
			}
		}
	}
	if len(all) == 0 {
		return []Finding{c.finding(ruleClassSecret, c.at("secretName"), "",
			"its Secret %s is not among the files: whether they fit is not known", display.Name(c.Secret))}
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

// mayShare is whether two objects may be in one namespace, where not all say it.
func mayShare(a, b string) bool { return a == b || a == "" || b == "" }

func (c *class) distance(s *Secret) int {
	switch {
	case s.file == c.file:
		return 0
	case filepath.Dir(s.file.Name) == filepath.Dir(c.file.Name):
		return 1
	}
	return 2
}

func (c *class) compare(s *Secret) (findings []Finding) {
	if !s.Ours {
		return []Finding{c.finding(ruleClassDiffers, c.at("secretName"),
			"", "its Secret %s (%s:%d) is no ciphertext Secret: it has neither the type %s nor the label %s",
			display.Name(s.name), display.Name(s.file.Name), s.line, ciphertext.Type, ciphertext.LabelTransitKey)}
	}
	differs := func(parameter, class, secret string) {
		if class != "" && secret != "" && class != secret {
			findings = append(findings,
				c.finding(ruleClassDiffers, c.at(parameter),
					"", "%s differs from that of its Secret %s (%s:%d): nothing would open", parameter,
					display.Name(s.name), display.Name(s.file.Name), s.line))
		}
	}
	differs("transitKey", c.Key.Name, s.Meta.Labels[ciphertext.LabelTransitKey])
	differs("transitMount", c.Key.Mount, s.mount())
	differs("scope", string(c.Scope), string(s.scope()))
	for _, entry := range c.Entries() {
		if len(validation.IsConfigMapKey(entry)) == 0 &&
			!slices.ContainsFunc(s.Entries, func(e *Entry) bool { return e.Name == entry }) {
			findings = append(findings,
				c.finding(ruleClassObject, c.at("objects"), entry, "its Secret %s (%s:%d) does not have it",
					display.Name(s.name), display.Name(s.file.Name), s.line))
		}
	}
	return findings
}
