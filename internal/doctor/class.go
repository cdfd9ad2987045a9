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

	classes "github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// subjectSide is the pod and the classes that were asked about. It is read early,
// since what the cluster has to offer depends on what they want.
type subjectSide struct {
	loaded  bool
	pod     *corev1.Pod
	podErr  error
	classes []*class
}

// class is a SecretProviderClass with the volume that names it.
type class struct {
	*run
	name    string
	of      string
	account string
	volume  *corev1.CSIVolumeSource // nil without a pod

	object *spcv1.SecretProviderClass
	err    error // of reading it, or of its parameters
	bad    bool  // the error is of its parameters
	classes.Class

	entries []string // that the objects name, sorted; nil: every entry

	role   map[string]any // as Vault has it; nil if it could not be read
	login  *login
	secret *corev1.Secret
}

// load reads pod and classes, once.
func (w *run) load(ctx context.Context) *subjectSide {
	s := &w.subject
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
		if v.CSI == nil || v.CSI.Driver != driverName || v.CSI.VolumeAttributes[classes.AttributeClass] == "" {
			continue
		}
		w.loadClass(ctx, v.CSI.VolumeAttributes[classes.AttributeClass], s.pod.Spec.ServiceAccountName, v.CSI)
	}
	return s
}

func (w *run) loadClass(ctx context.Context, name, account string, volume *corev1.CSIVolumeSource) {
	c := &class{run: w, name: name, of: "class " + w.Namespace + "/" + name, account: account, volume: volume}
	if slices.ContainsFunc(w.subject.classes, func(other *class) bool { return other.of == c.of }) {
		c.of += fmt.Sprintf(" (volume %d)", len(w.subject.classes)+1)
	}
	raw, err := w.raw(ctx, driverAPI+"/namespaces/"+w.Namespace+"/secretproviderclasses/"+name)
	if err == nil {
		err = json.Unmarshal(raw, &c.object)
	}
	if err != nil {
		c.err, c.object = err, nil
		w.subject.classes = append(w.subject.classes, c)
		return
	}
	if volume != nil && c.object.Spec.Provider != classes.Provider {
		return // somebody else's volume
	}
	parameters := maps.Clone(c.object.Spec.Parameters)
	if parameters == nil {
		parameters = map[string]string{}
	}
	if volume != nil {
		maps.Copy(parameters, volume.VolumeAttributes) // which override them
	}
	settings := w.provider.settings
	if !w.provider.seen {
		// What the provider allows is not known; where credentials go is decided later.
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
	if c.Class, errs = classes.Parse(parameters, &settings, ""); len(errs) > 0 {
		c.err, c.bad = errs.ToAggregate(), true
	}
	for _, entry := range c.Class.Entries() {
		if !slices.Contains(c.entries, entry) {
			c.entries = append(c.entries, entry)
		}
	}
	slices.Sort(c.entries)
	w.subject.classes = append(w.subject.classes, c)
}

// audiences are those of the tokens to log in to Vault with. asPod reports whether a
// volume needs the API server's besides, to read its Secret as the pod.
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

// subjects looks at the pod and at each class.
func (w *run) subjects(ctx context.Context) {
	pod := "pod " + w.Namespace + "/" + w.Pod
	if w.Pod != "" {
		w.check(ctx, pod, "pod", []string{"cluster"}, w.checkPod)
	} else if w.Kube == nil || w.broken["/cluster"] != "" {
		w.check(ctx, "class "+w.Namespace+"/"+w.Class, "class", []string{"cluster"}, nil)
		return
	} else {
		ctx, cancel := context.WithTimeout(ctx, w.Timeout)
		w.load(ctx)
		cancel()
	}
	for _, c := range w.subject.classes {
		c.checkAll(ctx)
	}
	if w.Pod != "" && w.subject.pod != nil {
		w.checkMountAfterOthers(ctx, pod)
	}
}

// checkAll looks at all that a class rests on.
func (c *class) checkAll(ctx context.Context) {
	look := func(name string, check func(context.Context) finding, needs ...string) {
		c.check(ctx, c.of, name, needs, check)
	}
	look("class", c.checkClass, "cluster", "crds")
	look("service-account", c.checkAccount, "cluster")
	look("auth-mount", func(ctx context.Context) finding {
		if f, refused := c.refuseAuthMount(); refused {
			return f
		}
		return c.checkAuthMount(ctx, c.VaultNamespace, c.AuthMount)
	}, "class", "vault", "vault-seal")
	look("role", c.checkRole, "class", "service-account", "auth-mount")
	look("audience", c.checkAudience, "role")
	look("login", c.checkLogin, "role", "audience")
	look("policy", c.checkPolicy, "login")
	look("key", c.checkKey, "class", "vault", "vault-seal")
	look("secret", c.checkSecret, "class")
	look("label", c.checkLabel, "secret")
	look("opens", c.checkOpens, "secret", "key")
	look("source", c.checkSource, "class", "service-account", "secret")
}

func (c *class) kubectl(words ...string) string {
	return command(append([]string{"kubectl", "-n", c.Namespace}, words...)...)
}

// setParameter is the command that sets a parameter of the class.
func (c *class) setParameter(name, value string) string {
	// of texts only
	patch, _ := json.Marshal(map[string]any{"spec": map[string]any{"parameters": map[string]string{name: value}}})
	return c.kubectl("patch", "secretproviderclass", c.name, "--type=merge", "-p", string(patch))
}

func (c *class) checkClass(context.Context) finding {
	switch {
	case c.bad:
		return brokenf("its parameters: %s", oneLine(c.err)).
			withFix(c.kubectl("edit", "secretproviderclass", c.name)).
			withAdvice("docs/reference/parameters.md has the parameters; the pod's volumeAttributes override those of the class")
	case apierrors.IsNotFound(c.err):
		return brokenf("there is no SecretProviderClass %s in namespace %s", c.name, c.Namespace).
			withFix(c.kubectl("get", "secretproviderclasses")).
			withAdvice("it has to be in the pod's namespace")
	case c.err != nil:
		f := unseen("get secretproviderclasses.secrets-store.csi.x-k8s.io -n "+c.Namespace, c.err)
		f.blocks = true
		return f
	case c.object.Spec.Provider != classes.Provider:
		return brokenf("its spec.provider is %q: the driver would not ask the provider secretmanager",
			c.object.Spec.Provider).
			withFix(c.kubectl("edit", "secretproviderclass", c.name))
	}
	f := okf("role %s, key %s, Secret %s, scope %s", c.Role, c.Key, c.Secret, c.Scope)
	if used := strings.TrimRight(c.vault.config.Address, "/"); c.VaultAddress != "" && used != "" &&
		c.VaultAddress != used {
		f = f.withWarning(fmt.Sprintf("pods use the Vault at %s, and what follows is about the one at %s",
			c.VaultAddress, used))
	}
	return f
}

func (c *class) checkAccount(ctx context.Context) finding {
	if c.account == "" {
		return unknownf("name the service account of the pods with --service-account")
	}
	_, err := c.Kube.CoreV1().ServiceAccounts(c.Namespace).Get(ctx, c.account, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return brokenf("there is no service account %s in namespace %s", c.account, c.Namespace).
			withFix(c.kubectl("create", "serviceaccount", c.account))
	}
	if err != nil {
		return unseen("get serviceaccounts -n "+c.Namespace, err)
	}
	return okf("%s/%s", c.Namespace, c.account)
}

// checkSource looks at the way on which the ciphertext gets to the provider.
func (c *class) checkSource(ctx context.Context) finding {
	ref := `nodePublishSecretRef: {name: ` + c.Secret + `}`
	if c.volume != nil && c.volume.NodePublishSecretRef != nil {
		if name := c.volume.NodePublishSecretRef.Name; name != c.Secret {
			return brokenf("the pod's nodePublishSecretRef names Secret %s, and the class %s", name, c.Secret).
				withFix(c.setParameter("secretName", name)).
				withAdvice("or set " + ref + " in the pod's volume, which takes a new pod")
		}
		return okf("the kubelet hands over Secret %s (nodePublishSecretRef)", c.Secret)
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
		f := unseen("create subjectaccessreviews.authorization.k8s.io", err)
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
		withAdvice("set " + ref + " in the pod's volume, which takes a new pod; or the owner of namespace " + c.Namespace +
			" gives the service account a Role with get on that one")
}

// decides is the advice where role, policy or key does not give what the class asks
// for. An author of classes can ask for any key, so no command that grants it is
// printed: it would be copied by somebody who has the rights.
func (c *class) decides() string {
	return fmt.Sprintf("only the class asks for this: the owner of %s decides whether service account %s/%s may "+
		"decrypt with it, and sets it up (%s vault-setup --help)",
		c.Key, c.Namespace, cmp.Or(c.account, "SERVICEACCOUNT"), c.program())
}

// ownNamespace reports whether the Vault namespace of the class is one that the user
// or the provider's operator configured.
func (c *class) ownNamespace() bool {
	s := c.provider.settings
	return configured(c.VaultNamespace,
		append([]string{c.Options.VaultNamespace, s.VaultNamespace}, s.AllowedNamespaces...))
}

// refuseNamespace is the finding for what would send credentials to a Vault namespace
// that only the class names.
func (c *class) refuseNamespace() (f finding, refused bool) {
	if c.ownNamespace() {
		return finding{}, false
	}
	f = unknownf("the class names Vault namespace %q, which %s: no credentials are sent there", c.VaultNamespace,
		c.notConfigured("--vault-allowed-namespaces")).
		withAdvice("if that is the right one, set VAULT_NAMESPACE to it")
	f.blocks = true
	return f, true
}

// refuseAuthMount is the same for the auth mount.
func (c *class) refuseAuthMount() (f finding, refused bool) {
	if f, refused := c.refuseNamespace(); refused {
		return f, true
	}
	s := c.provider.settings
	if configured(c.AuthMount, append([]string{c.Options.AuthMount, s.AuthMount}, s.AllowedAuthMounts...)) {
		return finding{}, false
	}
	f = unknownf("the class names auth mount %q, which %s: no credentials are sent there", c.AuthMount,
		c.notConfigured("--vault-allowed-auth-mounts")).
		withAdvice("if that is the right one, name it with --auth-mount")
	f.blocks = true
	return f, true
}

// configured reports whether a path is one of those, with slashes around them or not.
func configured(path string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return strings.Trim(p, "/") == path })
}

func (c *class) notConfigured(flag string) string {
	if c.provider.set == nil {
		return "may be allowed by the settings of the provider or not, as they cannot be seen"
	}
	return "the provider's operator has not allowed (" + flag + ")"
}

// vaultEnv is what a command for Vault has to be preceded by.
func (c *class) vaultEnv() string {
	if c.VaultNamespace != c.Options.VaultNamespace && c.ownNamespace() {
		return "VAULT_NAMESPACE=" + display.ShellWord(c.VaultNamespace) + " "
	}
	return ""
}

func (w *run) program() string { return cmp.Or(w.Program, "secretmanager") }

var errNoAccount = errors.New("name the service account of the pods with --service-account")
