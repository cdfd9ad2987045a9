package lint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
	"github.com/secretmanager-io/secretmanager/internal/vaultsetup"
)

const csiDriver = "secrets-store.csi.k8s.io"

// volume is a volume of the Secrets Store CSI driver in a pod or in a template of pods.
type volume struct {
	object     // that has the pod or the template
	name       string
	line       int
	class      string
	classLine  int
	secret     string // of nodePublishSecretRef; empty without one
	secretLine int
	readOnly   bool
	attributes map[string]string // that override parameters of the class
	lines      map[string]int    // of the attributes
	account    string
	subPaths   []int // the lines of mounts with subPath
}

// podSpecs are the paths of the specification of pods in the kinds that have one, by API group and kind.
var podSpecs = map[string][]string{
	"/Pod":                   {"spec"},
	"/PodTemplate":           {"template", "spec"},
	"/ReplicationController": {"spec", "template", "spec"},
	"apps/Deployment":        {"spec", "template", "spec"},
	"apps/StatefulSet":       {"spec", "template", "spec"},
	"apps/DaemonSet":         {"spec", "template", "spec"},
	"apps/ReplicaSet":        {"spec", "template", "spec"},
	"batch/Job":              {"spec", "template", "spec"},
	"batch/CronJob":          {"spec", "jobTemplate", "spec", "template", "spec"},
}

// readVolumes reads the volumes of the driver in an object that has pods.
func (f *File) readVolumes(o *manifest.Object) {
	group, _, grouped := strings.Cut(o.APIVersion, "/")
	if !grouped {
		group = ""
	}
	path, ok := podSpecs[group+"/"+o.Kind]
	if !ok {
		return
	}
	pod := o.Root.Get(path...)
	for _, item := range pod.Get("volumes").List() {
		csi := item.Get("csi")
		if driver, _ := csi.Get("driver").Text(); driver != csiDriver {
			continue
		}
		v := &volume{object: object{file: f, Object: o}, line: csi.Line(), attributes: map[string]string{},
			lines: map[string]int{}, readOnly: csi.Get("readOnly").IsTrue()}
		v.name, _ = item.Get("name").Text()
		v.secret, _ = csi.Get("nodePublishSecretRef", "name").Text()
		v.secretLine = csi.Get("nodePublishSecretRef", "name").Line()
		for _, p := range csi.Get("volumeAttributes").Pairs() {
			switch value, isText := p.Value.Text(); {
			case !isText: // the API server does not accept it
			case p.Name == class.AttributeClass:
				v.class, v.classLine = value, p.Value.Line()
			default:
				v.attributes[p.Name], v.lines[p.Name] = value, p.Value.Line()
			}
		}
		account, _ := pod.Get("serviceAccountName").Text()
		old, _ := pod.Get("serviceAccount").Text() // deprecated
		v.account = cmp.Or(account, old, "default")
		v.subPaths = subPaths(pod, v.name)
		f.volumes = append(f.volumes, v)
	}
}

// subPaths returns the lines of the mounts of a volume with subPath.
func subPaths(pod manifest.Value, volume string) (lines []int) {
	for _, containers := range []string{"initContainers", "containers", "ephemeralContainers"} {
		for _, container := range pod.Get(containers).List() {
			for _, mount := range container.Get("volumeMounts").List() {
				name, _ := mount.Get("name").Text()
				path, _ := mount.Get("subPath").Text()
				expression, _ := mount.Get("subPathExpr").Text()
				if name == volume && path+expression != "" {
					lines = append(lines, mount.Line())
				}
			}
		}
	}
	return lines
}

// problem returns a finding of the volume.
func (v *volume) problem(r Rule, line int, format string, args ...any) Finding {
	return v.finding(r, line, "", "volume %s: "+format, append([]any{display.Name(v.name)}, args...)...)
}

// check compares the volume with its class. If there are several of that name, for other clusters, it must fit one of
// them. Volumes of other providers are not checked: a class that is not among the files may be one of theirs.
func (v *volume) check(files []*File, o Options) []Finding {
	if v.patched || v.class == "" {
		return nil
	}
	var all []*classObject
	for _, f := range files {
		for _, other := range f.otherClasses {
			if other.mayBeNamed(v.class) && mayShare(other.targetNamespace(o), v.targetNamespace(o)) {
				return nil
			}
		}
		for _, c := range f.classes {
			if !c.mayBeNamed(v.class) || !mayShare(c.targetNamespace(o), v.targetNamespace(o)) {
				continue
			}
			if f.patch || c.patched {
				return nil
			}
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return v.checkMissingClass(files, o)
	}
	slices.SortStableFunc(all, func(a, b *classObject) int { return v.distance(&a.object) - v.distance(&b.object) })
	return fewest(all, func(c *classObject) []Finding { return v.compare(c, files, o) })
}

// checkMissingClass reports a class that is not among the files if it is likely to be one of this provider: the class
// or the Secret of the volume has a similar one, or the namespace has other classes.
func (v *volume) checkMissingClass(files []*File, o Options) []Finding {
	var similar, elsewhere *classObject
	likely := false
	namespace := v.targetNamespace(o)
	for _, f := range files {
		for _, c := range f.classes {
			if !mayShare(c.targetNamespace(o), namespace) {
				if c.Name == v.class {
					elsewhere = c
				}
				continue
			}
			if namespace != "" && c.targetNamespace(o) == namespace {
				likely = true
			}
			if levenshtein.ComputeDistance(display.Clip(c.Name, 300), display.Clip(v.class, 300)) <= 2 {
				similar = c
			}
		}
		for _, s := range f.secrets {
			likely = likely || v.secret != "" && s.mayBeNamed(v.secret) && mayShare(s.targetNamespace(o), namespace)
		}
	}
	hint := ""
	switch {
	case similar != nil:
		hint = fmt.Sprintf(": did you mean %s?", similar.location())
	case elsewhere != nil:
		hint = fmt.Sprintf(": %s is in namespace %s, and the driver reads the class in the namespace of the pod",
			elsewhere.location(), display.Name(elsewhere.targetNamespace(o)))
	case !likely:
		return nil
	}
	return []Finding{v.problem(ruleVolumeClass, v.classLine,
		"its class %s is not among the files, so they cannot be compared%s", display.Name(v.class), hint)}
}

// compare checks the volume with one class of its name.
func (v *volume) compare(c *classObject, files []*File, o Options) (findings []Finding) {
	if !v.readOnly {
		findings = append(findings, v.problem(ruleReadOnly, v.line,
			"has no readOnly: true below csi, and the driver refuses to mount it: no pod would start"))
	}
	for _, line := range v.subPaths {
		findings = append(findings, v.problem(ruleSubPath, line,
			"is mounted with subPath, and the container does not see later versions of the file until it restarts: "+
				"mount the volume as a directory"))
	}
	parameters := maps.Clone(c.parameters)
	maps.Copy(parameters, v.attributes)
	effective, errs := class.Parse(parameters, nil, "")
	m := mounted{object: &v.object, Class: effective, secret: effective.Secret, lines: v.lines, line: v.line}
	if len(errs) > 0 {
		if len(v.attributes) > 0 {
			findings = append(findings, m.parameterFindings(errs)...)
		}
		return findings
	}
	findings = append(findings, v.checkAccount(effective.Role, c, files, o)...)
	if v.secret != "" && v.secret != effective.Secret && !v.mayBeRenamed(effective.Secret) {
		if !v.delivers(&effective) {
			return append(findings, v.problem(ruleVolumeSecret, v.secretLine,
				"nodePublishSecretRef names Secret %s, and its class %s names %s%s: nothing would decrypt",
				display.Name(v.secret), c.location(), display.Name(effective.Secret), v.onlyExisting(effective.Secret, files, o)))
		}
		m.secret = v.secret
		m.lines = maps.Clone(v.lines)
		m.lines["secretName"] = v.secretLine
	}
	if len(v.attributes) > 0 || m.secret != c.Secret {
		findings = append(findings, m.check(files, o)...)
	}
	return findings
}

// delivers reports whether the volume replaces the Secret of a class. What the kubelet delivers can be decrypted
// whatever its name is, unless the scope binds it to the name that the class has.
func (v *volume) delivers(c *class.Class) bool {
	return v.secret != "" && v.secret != c.Secret && c.Scope != ciphertext.Strict
}

// mayBeRenamed reports whether a kustomization may give the Secret of the volume another name.
func (v *volume) mayBeRenamed(name string) bool {
	return v.renamed && (strings.Contains(name, v.secret) || strings.Contains(v.secret, name))
}

// onlyExisting says which of two Secrets is among the files, if it is only one.
func (v *volume) onlyExisting(inClass string, files []*File, o Options) string {
	has := func(name string) bool {
		for _, f := range files {
			for _, s := range f.secrets {
				if s.mayBeNamed(name) && mayShare(s.targetNamespace(o), v.targetNamespace(o)) {
					return true
				}
			}
		}
		return false
	}
	switch a, b := has(v.secret), has(inClass); {
	case a && !b:
		return ", which is not among the files"
	case b && !a:
		return ", and only that one is among the files"
	}
	return ""
}

// checkAccount compares the service account of the pods with the role of the class. Only Vault knows whom a role
// accepts, but vault-setup names roles by their account.
func (v *volume) checkAccount(role string, c *classObject, files []*File, o Options) []Finding {
	namespace := v.targetNamespace(o)
	if name, ok := strings.CutPrefix(role, vaultsetup.NamespacesRoleName("")); ok && name != v.account {
		return []Finding{v.accountFinding(role, name, c)}
	}
	own := vaultsetup.Account{Namespace: namespace, Name: v.account}
	if namespace == "" || role == own.RoleName() {
		return nil
	}
	for _, f := range files {
		for _, account := range f.accounts {
			other := vaultsetup.Account{Namespace: namespace, Name: account.Name}
			if mayShare(account.targetNamespace(o), namespace) && role == other.RoleName() {
				return []Finding{v.accountFinding(role, account.Name, c)}
			}
		}
	}
	return nil
}

func (v *volume) accountFinding(role, account string, c *classObject) Finding {
	return v.problem(ruleAccount, v.line, "its class %s has role %s, which by its name is for service account %s, and "+
		"the pod runs as %s: set serviceAccountName, or check that the role accepts it", c.location(), display.Name(role),
		display.Name(account), display.Name(v.account))
}
