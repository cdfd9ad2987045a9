package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	spcv1 "sigs.k8s.io/secrets-store-csi-driver/apis/v1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/vaultaddr"
)

// targetInfo is the pod and the classes to check. The checks of the cluster need them, too.
type targetInfo struct {
	loaded  bool
	pod     *corev1.Pod
	podErr  error
	classes []*classCheck
}

// classCheck has the results of checking a SecretProviderClass and the volume that names it.
type classCheck struct {
	*run
	name    string
	subject string
	account string
	volume  *corev1.CSIVolumeSource // nil without a pod

	object  *spcv1.SecretProviderClass
	err     error // of reading it, or of its parameters
	invalid bool  // the error is of its parameters
	class.Class

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
			w.loadClass(ctx, w.Class, w.Account, nil)
		}
		return s
	}
	if s.pod, s.podErr = w.Kube.CoreV1().Pods(w.Namespace).Get(ctx, w.Pod, metav1.GetOptions{}); s.podErr != nil {
		s.pod = nil
		return s
	}
	for _, v := range s.pod.Spec.Volumes {
		if v.CSI == nil || v.CSI.Driver != driverName || v.CSI.VolumeAttributes[class.AttributeClass] == "" {
			continue
		}
		w.loadClass(ctx, v.CSI.VolumeAttributes[class.AttributeClass], s.pod.Spec.ServiceAccountName, v.CSI)
	}
	return s
}

func (w *run) loadClass(ctx context.Context, name, account string, volume *corev1.CSIVolumeSource) {
	c := &classCheck{run: w, name: name, subject: "class " + w.Namespace + "/" + name, account: account, volume: volume}
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
	pod := "pod " + w.Namespace + "/" + w.Pod
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
	if w.Pod != "" && w.target.pod != nil {
		w.checkMountLast(ctx, pod)
	}
}

// checkAll checks everything that a class depends on.
func (c *classCheck) checkAll(ctx context.Context) {
	check := func(name string, f func(context.Context) finding, needs ...string) {
		c.check(ctx, c.subject, name, needs, f)
	}
	check("class", c.checkClass, "cluster", "crds")
	check("service-account", c.checkAccount, "cluster")
	check("auth-mount", func(ctx context.Context) finding {
		if f, refused := c.refuseAuthMount(); refused {
			return f
		}
		return c.checkAuthMount(ctx, c.VaultNamespace, c.AuthMount)
	}, "class", "vault", "vault-seal")
	check("role", c.checkRole, "class", "service-account", "auth-mount")
	check("audience", c.checkAudience, "role")
	check("login", c.checkLogin, "role", "audience")
	check("policy", c.checkPolicy, "login")
	check("key", c.checkKey, "class", "vault", "vault-seal")
	check("secret", c.checkSecret, "class")
	check("label", c.checkLabel, "secret")
	check("decrypts", c.checkDecrypts, "secret", "key")
	check("source", c.checkSource, "class", "service-account", "secret")
}

func (c *classCheck) kubectl(words ...string) string {
	return command(append([]string{"kubectl", "-n", c.Namespace}, words...)...)
}

// setParameter returns the command that sets a parameter of the class.
func (c *classCheck) setParameter(name, value string) string {
	patch, _ := json.Marshal(map[string]any{"spec": map[string]any{"parameters": map[string]string{name: value}}})
	return c.kubectl("patch", "secretproviderclass", c.name, "--type=merge", "-p", string(patch))
}

func (c *classCheck) checkClass(context.Context) finding {
	switch {
	case c.invalid:
		return brokenf("invalid parameters: %s", oneLine(c.err)).
			withFix(c.kubectl("edit", "secretproviderclass", c.name)).
			withAdvice("docs/reference/parameters.md describes the parameters; the pod's volumeAttributes override " +
				"those of the class")
	case apierrors.IsNotFound(c.err):
		return brokenf("SecretProviderClass %s does not exist in namespace %s", c.name, c.Namespace).
			withFix(c.kubectl("get", "secretproviderclasses")).
			withAdvice("it must be in the pod's namespace")
	case c.err != nil:
		f := requestFailed("get secretproviderclasses.secrets-store.csi.x-k8s.io -n "+c.Namespace, c.err)
		f.blocks = true
		return f
	case c.object.Spec.Provider != class.Provider:
		return brokenf("spec.provider is %q: the driver would not call the provider secretmanager",
			c.object.Spec.Provider).
			withFix(c.kubectl("edit", "secretproviderclass", c.name))
	}
	f := okf("role %s, key %s, Secret %s, scope %s", c.Role, c.Key, c.Secret, c.Scope)
	// One address in common is enough: it is the same cluster.
	used := vaultaddr.NormalizeList(c.vault.config.Address)
	if c.VaultAddress != "" && used != "" && !slices.ContainsFunc(vaultaddr.Split(used), func(address string) bool {
		return slices.Contains(vaultaddr.Split(c.VaultAddress), address)
	}) {
		f = f.withWarning(fmt.Sprintf("pods use the Vault at %s, and the checks below use the one at %s",
			c.VaultAddress, used))
	}
	return f
}

func (c *classCheck) checkAccount(ctx context.Context) finding {
	if c.account == "" {
		return unknownf("name the service account of the pods with --service-account")
	}
	_, err := c.Kube.CoreV1().ServiceAccounts(c.Namespace).Get(ctx, c.account, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return brokenf("service account %s does not exist in namespace %s", c.account, c.Namespace).
			withFix(c.kubectl("create", "serviceaccount", c.account))
	}
	if err != nil {
		return requestFailed("get serviceaccounts -n "+c.Namespace, err)
	}
	return okf("%s/%s", c.Namespace, c.account)
}

// checkSource checks how the provider gets the ciphertext.
func (c *classCheck) checkSource(ctx context.Context) finding {
	ref := `nodePublishSecretRef: {name: ` + c.Secret + `}`
	if c.volume != nil && c.volume.NodePublishSecretRef != nil {
		if name := c.volume.NodePublishSecretRef.Name; name != c.Secret {
			return brokenf("the pod's nodePublishSecretRef names Secret %s, but the class names %s", name, c.Secret).
				withFix(c.setParameter("secretName", name)).
				withAdvice("or set " + ref + " in the volume of a new pod")
		}
		return okf("the kubelet passes Secret %s (nodePublishSecretRef)", c.Secret)
	}
	if c.account == "" {
		return okf("with %s in the pod's volume, under csi", ref)
	}
	review, err := c.Kube.AuthorizationV1().SubjectAccessReviews().
		Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + c.Namespace + ":" + c.account,
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + c.Namespace,
				"system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: c.Namespace, Verb: "get",
				Resource: "secrets", Name: c.Secret},
		}}, metav1.CreateOptions{})
	if err != nil {
		f := requestFailed("create subjectaccessreviews.authorization.k8s.io", err)
		f.detail = "whether service account " + c.account + " may get Secret " + c.Secret + ": " + f.detail
		return f
	}
	switch {
	case review.Status.Allowed:
		return okf("service account %s may get Secret %s", c.account, c.Secret)
	case c.volume == nil:
		return okf("only with %s in the pod's volume, under csi: service account %s may not get it", ref, c.account)
	}
	return brokenf("the pod's volume has no nodePublishSecretRef, and service account %s may not get Secret %s",
		c.account, c.Secret).
		withAdvice("set " + ref + " in the volume of a new pod; or the owner of namespace " + c.Namespace +
			" grants the service account a Role with get on that Secret")
}

// ownerAdvice returns the advice where role, policy or key do not grant what the class asks for. It
// has no command: an author of classes can ask for any key, and a user with the right to grant it
// would copy the command.
func (c *classCheck) ownerAdvice() string {
	return fmt.Sprintf("only the class asks for this: the owner of %s decides whether service account %s/%s may "+
		"decrypt with it, and grants it (%s vault-setup --help)",
		c.Key, c.Namespace, cmp.Or(c.account, "SERVICEACCOUNT"), c.program())
}

// namespaceAllowed reports whether the user or the operator of the provider configured the Vault
// namespace of the class.
func (c *classCheck) namespaceAllowed() bool {
	s := c.provider.settings
	return configured(c.VaultNamespace,
		append([]string{c.Options.VaultNamespace, s.VaultNamespace}, s.AllowedNamespaces...))
}

// refuseNamespace returns the finding for a Vault namespace that only the class names: credentials
// must not be sent there.
func (c *classCheck) refuseNamespace() (f finding, refused bool) {
	if c.namespaceAllowed() {
		return finding{}, false
	}
	f = unknownf("the class names Vault namespace %q, which %s: no credentials are sent there", c.VaultNamespace,
		c.notConfigured("--vault-allowed-namespaces")).
		withAdvice("if you trust it, set VAULT_NAMESPACE to it")
	f.blocks = true
	return f, true
}

// refuseAuthMount returns the finding for an auth mount that only the class names.
func (c *classCheck) refuseAuthMount() (f finding, refused bool) {
	if f, refused := c.refuseNamespace(); refused {
		return f, true
	}
	s := c.provider.settings
	if configured(c.AuthMount, append([]string{c.Options.AuthMount, s.AuthMount}, s.AllowedAuthMounts...)) {
		return finding{}, false
	}
	f = unknownf("the class names auth mount %q, which %s: no credentials are sent there", c.AuthMount,
		c.notConfigured("--vault-allowed-auth-mounts")).
		withAdvice("if you trust it, name it with --auth-mount")
	f.blocks = true
	return f, true
}

// configured reports whether a path is one of paths, which may have slashes around them.
func configured(path string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return strings.Trim(p, "/") == path })
}

func (c *classCheck) notConfigured(flag string) string {
	if c.provider.set == nil {
		return "the settings of the provider may allow, but they cannot be read"
	}
	return "the operator of the provider has not allowed (" + flag + ")"
}

// vaultEnv returns the prefix of a command for the Vault namespace of the class.
func (c *classCheck) vaultEnv() string {
	if c.VaultNamespace != c.Options.VaultNamespace && c.namespaceAllowed() {
		return "VAULT_NAMESPACE=" + display.ShellWord(c.VaultNamespace) + " "
	}
	return ""
}

func (w *run) program() string { return cmp.Or(w.Program, "secretmanager") }

var errNoAccount = errors.New("name the service account of the pods with --service-account")
