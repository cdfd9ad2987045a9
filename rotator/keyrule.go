package rotator

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// keyRule selects keys of a transit engine by name, and says in which namespaces they may be
// used.
type keyRule struct {
	mount      string
	name       string   // or a pattern of path.Match
	namespaces []string // empty: all
}

func (r keyRule) isPattern() bool { return strings.ContainsAny(r.name, `*?[\`) }

// keyRules selects the keys of a run. The first rule for a key counts, and one without a
// pattern comes before those with one.
type keyRules []keyRule

// parseKeyRules parses [MOUNT/]NAME[=NAMESPACE,…].
func parseKeyRules(texts []string, mount string) (rules keyRules, err error) {
	if len(texts) == 0 {
		return nil, errors.New(
			"no transit key is selected (--transit-key): name the keys to rotate, or patterns of their names",
		)
	}
	var errs []error
	for _, text := range texts {
		rule, err := parseKeyRule(text, mount)
		if err != nil {
			errs = append(errs, fmt.Errorf("transit key %q: %w", text, err))
		}
		rules = append(rules, rule)
	}
	slices.SortStableFunc(rules, func(a, b keyRule) int {
		switch {
		case a.isPattern() == b.isPattern():
			return 0
		case a.isPattern():
			return 1
		}
		return -1
	})
	for i, rule := range rules {
		if i > 0 && slices.ContainsFunc(rules[:i], func(r keyRule) bool {
			return r.mount == rule.mount && r.name == rule.name
		}) {
			errs = append(errs, fmt.Errorf("transit key %q is given twice: name its namespaces once, separated by commas",
				rule.mount+"/"+rule.name))
		}
	}
	return rules, errors.Join(errs...)
}

func parseKeyRule(text, mount string) (keyRule, error) {
	name, namespaces, bound := strings.Cut(text, "=")
	if slash := strings.LastIndex(name, "/"); slash >= 0 {
		mount, name = name[:slash], name[slash+1:]
	}
	rule := keyRule{mount: mount, name: name}
	if err := ciphertext.CheckPath(mount); err != nil {
		return rule, err
	}
	if bound {
		rule.namespaces = unique(strings.Split(namespaces, ","))
		for _, ns := range rule.namespaces {
			if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
				return rule, fmt.Errorf("namespace %q: %s", ns, problems[0])
			}
		}
	}
	if rule.isPattern() {
		if _, err := path.Match(name, ""); err != nil {
			return rule, errors.New("the pattern is not well-formed")
		}
		if strings.Trim(name, "*?") == "" {
			return rule, errors.New("it selects every key, also those of other programs: name more than wildcards")
		}
		return rule, nil
	}
	if err := ciphertext.CheckName(name); err != nil {
		return rule, err
	}
	if problems := validation.IsValidLabelValue(name); len(problems) > 0 {
		return rule, fmt.Errorf("it must be a valid label value, to find its Secrets: %s", problems[0])
	}
	return rule, nil
}

// find returns the rule for a key, or nil if none selects it.
func (rules keyRules) find(key ciphertext.Key) *keyRule {
	for i := range rules {
		if rules[i].mount != key.Mount {
			continue
		}
		if matched, err := path.Match(rules[i].name, key.Name); matched && err == nil {
			return &rules[i]
		}
	}
	return nil
}

// allows reports whether the keys of the rule may be used in a namespace.
func (r *keyRule) allows(namespace string) bool {
	return len(r.namespaces) == 0 || slices.Contains(r.namespaces, namespace)
}

// within reports whether the keys of the rule may be used in these namespaces only.
func (r *keyRule) within(namespaces []string) bool {
	for _, ns := range r.namespaces {
		if !slices.Contains(namespaces, ns) {
			return false
		}
	}
	return len(r.namespaces) > 0
}
