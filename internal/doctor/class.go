package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	spcv1 "sigs.k8s.io/secrets-store-csi-driver/apis/v1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
	"github.com/secretmanager-io/secretmanager/internal/vaultaddr"
)

// targetInfo is the pod and the classes to check. The checks of the cluster need them, too.
type targetInfo struct {
	loaded  bool
	pod     *corev1.Pod
	podErr  error
	classes []*classCheck

	workload     *workload.Workload // that the user names; nil for a pod
	pods         int                // of the workload
	fromTemplate bool               // the workload has no pod: pod is its template
	refused      *result.Finding    // why it has none
}

// classCheck has the results of checking a SecretProviderClass and the volume that names it.
type classCheck struct {
	*run
	name    string
	subject string
	account string
	volume  *corev1.CSIVolumeSource // nil without a pod
	// volumeName is the name of the volume in the pod.
	volumeName string

	object  *spcv1.SecretProviderClass
	err     error // of reading it, or of its parameters
	invalid bool  // the error is of its parameters
	class.Class
	parameters map[string]string // with the attributes of the volume

	entries []string // that the objects name, sorted; nil for every entry

	role   map[string]any // as read from Vault; nil if that failed
	login  *login
	secret *corev1.Secret
}

// load reads the pod and the classes once.
func (w *run) load(ctx context.Context) *targetInfo {
	s := &w.target
	if s.loaded || w.Kube == nil {
		return s
	}
	s.loaded = true
	if w.Pod == "" {
		if w.Class != "" {
			w.loadClass(ctx, w.Class, w.Account, corev1.Volume{})
		}
		return s
	}
	if w.Kind != "" && w.Kind != "Pod" {
		w.loadWorkload(ctx)
	} else {
		s.pod, s.podErr = w.Kube.CoreV1().Pods(w.Namespace).Get(ctx, w.Pod, metav1.GetOptions{})
	}
	if s.podErr != nil {
		s.pod = nil
		return s
	}
	for _, v := range s.pod.Spec.Volumes {
		if name := classOf(v); name != "" {
			// The template of a workload may leave out the service account.
			w.loadClass(ctx, name, cmp.Or(s.pod.Spec.ServiceAccountName, "default"), v)
		}
	}
	return s
}

// classOf returns the class that a volume of the driver names; empty for none.
func classOf(v corev1.Volume) string {
	if v.CSI == nil || v.CSI.Driver != driverName {
		return ""
	}
	return v.CSI.VolumeAttributes[class.AttributeClass]
}

func (w *run) loadClass(ctx context.Context, name, account string, v corev1.Volume) {
	volume := v.CSI
	c := &classCheck{run: w, name: name, subject: "class " + w.Namespace + "/" + name, account: account, volume: volume,
		volumeName: v.Name}
	if slices.ContainsFunc(w.target.classes, func(other *classCheck) bool { return other.subject == c.subject }) {
		c.subject += fmt.Sprintf(" (volume %d)", len(w.target.classes)+1)
	}
	raw, err := w.raw(ctx, driverAPI+"/namespaces/"+w.Namespace+"/secretproviderclasses/"+name)
	if err == nil {
		err = json.Unmarshal(raw, &c.object)
	}
	if err != nil {
		c.err, c.object = err, nil
		w.target.classes = append(w.target.classes, c)
		return
	}
	if volume != nil && c.object.Spec.Provider != class.Provider {
		return // a volume of another provider
	}
	parameters := maps.Clone(c.object.Spec.Parameters)
	if parameters == nil {
		parameters = map[string]string{}
	}
	if volume != nil {
		maps.Copy(parameters, volume.VolumeAttributes) // which override them
	}
	c.parameters = parameters
	settings := w.provider.settings
	if !w.provider.known {
		// It is unknown what the provider allows. refuseAuthMount decides later where credentials go.
		allow := func(list *[]string, parameter string) {
			if value := parameters[parameter]; value != "" {
				*list = append(slices.Clone(*list), value)
			}
		}
		allow(&settings.AllowedAddresses, "vaultAddress")
		allow(&settings.AllowedNamespaces, "vaultNamespace")
		allow(&settings.AllowedAuthMounts, "vaultAuthMountPath")
	}
	var errs field.ErrorList
	if c.Class, errs = class.Parse(parameters, &settings, ""); len(errs) > 0 {
		c.err, c.invalid = errs.ToAggregate(), true
	}
	for _, entry := range c.Class.Entries() {
		if !slices.Contains(c.entries, entry) {
			c.entries = append(c.entries, entry)
		}
	}
	slices.Sort(c.entries)
	w.target.classes = append(w.target.classes, c)
}

// audiences returns the audiences of the tokens for Vault, and whether a volume also needs one for
// the API server, to read its Secret as the pod.
func (w *run) audiences(ctx context.Context) (wanted []string, asPod bool) {
	add := func(list []string, audience string) []string {
		if slices.Contains(list, audience) {
			return list
		}
		return append(list, audience)
	}
	for _, c := range w.load(ctx).classes {
		if c.err == nil {
			wanted = add(wanted, c.Audience)
			asPod = asPod || c.volume != nil && c.volume.NodePublishSecretRef == nil
		}
	}
	if len(wanted) == 0 {
		wanted = add(wanted, w.provider.settings.Audience)
	}
	return wanted, asPod
}

// checkTarget checks the pod and each class.
func (w *run) checkTarget(ctx context.Context) {
	pod := strings.ToLower(cmp.Or(w.Kind, "Pod")) + " " + w.Namespace + "/" + w.Pod
	if w.Pod != "" {
		w.check(ctx, pod, "pod", []string{"cluster"}, w.checkPod)
	} else if w.Kube == nil || w.causes["/cluster"] != "" {
		w.check(ctx, "class "+w.Namespace+"/"+w.Class, "class", []string{"cluster"}, nil)
		return
	} else {
		ctx, cancel := context.WithTimeout(ctx, w.Timeout)
		w.load(ctx)
		cancel()
	}
	for _, c := range w.target.classes {
		c.checkAll(ctx)
	}
	if w.Pod != "" && w.target.pod != nil && !w.target.fromTemplate {
		w.checkMountLast(ctx, pod)
	}
}

// checkAll checks everything that a class depends on.
func (c *classCheck) checkAll(ctx context.Context) {
	check := func(name string, f func(context.Context) result.Finding, needs ...string) {
		c.check(ctx, c.subject, name, needs, f)
	}
	check("class", c.checkClass, "cluster", "crds")
	check("service-account", c.checkAccount, "cluster")
	check("auth-mount", func(ctx context.Context) result.Finding {
		if f, refused := c.refuseAuthMount(); refused {
			return f
		}
		return c.withDefaultMount(ctx, c.checkAuthMount(ctx, c.VaultNamespace, c.AuthMount))
	}, "class", "vault", "vault-seal")
	check("role", c.checkRole, "class", "service-account", "auth-mount")
	check("audience", c.checkAudience, "role")
	check("login", c.checkLogin, "role", "audience")
	check("policy", c.checkPolicy, "login")
	check("key", c.checkKey, "class", "vault", "vault-seal")
	check("secret", c.checkSecret, "class")
	check("label", c.checkLabel, "secret", "key")
	check("decrypts", c.checkDecrypts, "secret", "key")
	check("source", c.checkSource, "class", "service-account", "secret")
}

// withDefaultMount adds the fix for a class that names an auth mount which cannot be used, where the provider's default
// can.
func (c *classCheck) withDefaultMount(ctx context.Context, f result.Finding) result.Finding {
	standard := c.provider.settings.AuthMount
	if f.State != Broken || standard == c.AuthMount ||
		c.checkAuthMount(ctx, c.VaultNamespace, standard).State != OK {
		return f
	}
	if len(f.Fix) > 0 {
		f.Choices, f.Fix = []Alternative{{When: "auth/" + c.AuthMount + " is meant, which is to be made", Fixes: f.Fix}}, nil
	}
	for _, choice := range c.parameterFixes(ctx, "vaultAuthMountPath", c.parameters["vaultAuthMountPath"], standard) {
		when := "vaultAuthMountPath of the class is mistyped, and auth/" + standard + ", which exists, is meant"
		if choice.When != "" {
			when += ", and " + choice.When
		}
		f = f.WithChoice(when, choice.Fixes...)
	}
	return f
}

func (c *classCheck) kubectl(words ...string) string {
	return result.Command(append([]string{"kubectl", "-n", c.Namespace}, words...)...)
}

// classMissing returns the finding for a class that does not exist, with those that do.
func (c *classCheck) classMissing(ctx context.Context) result.Finding {
	f := result.Brokenf("SecretProviderClass %s does not exist in namespace %s", c.name, c.Namespace)
	raw, err := c.raw(ctx, driverAPI+"/secretproviderclasses")
	everywhere := err == nil
	if !everywhere {
		raw, err = c.raw(ctx, driverAPI+"/namespaces/"+c.Namespace+"/secretproviderclasses")
	}
	var list spcv1.SecretProviderClassList
	if err != nil || json.Unmarshal(raw, &list) != nil {
		return f.WithInspect(c.kubectl("get", "secretproviderclasses")).WithAdvice("it must be in the pod's namespace")
	}
	var near, all, elsewhere []string
	for _, other := range list.Items {
		switch {
		case other.Namespace == c.Namespace && other.Spec.Provider == class.Provider:
			all = append(all, other.Name)
			if levenshtein.ComputeDistance(other.Name, c.name) <= maxTypos {
				near = append(near, other.Name)
			}
		case other.Name == c.name:
			elsewhere = append(elsewhere, other.Namespace)
		}
	}
	switch {
	case len(elsewhere) > 0:
		f.Detail += "; it does in namespace " + result.Clip(strings.Join(elsewhere, ", "))
		f = f.WithAdvice("it must be in the pod's namespace: apply its manifest there too")
	case len(all) == 0:
		f = f.WithAdvice("the namespace has no class of this provider: apply the manifest of the class first")
	default:
		f.Detail += ", which has: " + result.Clip(strings.Join(all, ", "))
	}
	if len(near) != 1 {
		return f.WithInspect(c.kubectl("get", "secretproviderclasses"))
	}
	if fix := c.volumePatch(ctx, c.name, near[0], "volumeAttributes", class.AttributeClass); fix != nil {
		return f.WithFix(fix...)
	}
	return f.WithAdvice("if " + near[0] + " is meant, correct it in the pod's template")
}

// maxTypos is how many characters of a mistyped name differ from the right one.
const maxTypos = 2

func (c *classCheck) checkClass(ctx context.Context) result.Finding {
	switch {
	case c.invalid:
		return result.Brokenf("invalid parameters: %s", result.OneLine(c.err)).
			WithInspect(c.kubectl("get", "secretproviderclass", c.name, "-o", "yaml")).
			WithAdvice("docs/reference/parameters.md describes the parameters; the pod's volumeAttributes override " +
				"those of the class")
	case apierrors.IsNotFound(c.err):
		return c.classMissing(ctx)
	case c.err != nil:
		f := result.RequestFailed("get secretproviderclasses.secrets-store.csi.x-k8s.io -n "+c.Namespace, c.err)
		f.Blocks = true
		return f
	case c.object.Spec.Provider != class.Provider:
		return result.Brokenf("spec.provider is %q: the driver would not call the provider secretmanager",
			c.object.Spec.Provider).
			WithInspect(c.kubectl("get", "secretproviderclass", c.name, "-o", "yaml"))
	}
	f := result.OKf("role %s, key %s, Secret %s, scope %s", c.Role, c.Key, c.Secret, c.Scope)
	// One address in common is enough: it is the same cluster.
	used := vaultaddr.NormalizeList(c.vault.config.Address)
	if c.VaultAddress != "" && used != "" &&
		c.VaultAddress != vaultaddr.NormalizeList(c.provider.settings.VaultAddress) &&
		!slices.ContainsFunc(vaultaddr.Split(used), func(address string) bool {
			return slices.Contains(vaultaddr.Split(c.VaultAddress), address)
		}) {
		f = f.WithWarning(fmt.Sprintf("pods use the Vault at %s, and the checks below use the one at %s",
			c.VaultAddress, used))
	}
	return f
}

func (c *classCheck) checkAccount(ctx context.Context) result.Finding {
	if c.account == "" {
		return result.Unknownf("name the service account of the pods with --service-account")
	}
	_, err := c.Kube.CoreV1().ServiceAccounts(c.Namespace).Get(ctx, c.account, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return result.Brokenf("service account %s does not exist in namespace %s", c.account, c.Namespace).
			WithFix(c.kubectl("create", "serviceaccount", c.account))
	}
	if err != nil {
		return result.RequestFailed("get serviceaccounts -n "+c.Namespace, err)
	}
	return result.OKf("%s/%s", c.Namespace, c.account)
}

// ownerAdvice returns the advice where role, policy or key do not grant what the class asks for. It
// has no command: an author of classes can ask for any key, and a user with the right to grant it
// would copy the command.
func (c *classCheck) ownerAdvice() string {
	return fmt.Sprintf("only the class asks for this: the owner of %s decides whether service account %s/%s may "+
		"decrypt with it, and grants it (%s vault-setup --help)",
		c.Key, c.Namespace, cmp.Or(c.account, "SERVICEACCOUNT"), c.program())
}

// vaultEnv returns the prefix of a command for the Vault namespace of the class.
func (c *classCheck) vaultEnv() string {
	if c.VaultNamespace != c.Options.VaultNamespace && c.namespaceAllowed() {
		return "VAULT_NAMESPACE=" + display.ShellWord(c.VaultNamespace) + " "
	}
	return ""
}

func (w *run) program() string { return cmp.Or(w.Program, "secretmanager") }
