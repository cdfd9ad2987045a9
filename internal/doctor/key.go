package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/transit"
)

// maxOtherKeys bounds the other keys that are tried: each takes a line in Vault's audit log.
const maxOtherKeys = 5

// otherKeys returns other keys of the same mount from the labels of Secrets, if the user may list these. It requests
// only the metadata of the Secrets.
func (c *classCheck) otherKeys(ctx context.Context) []string {
	raw, err := c.Kube.Discovery().RESTClient().Get().AbsPath("/api/v1/secrets").
		Param("labelSelector", ciphertext.LabelTransitKey+","+ciphertext.LabelTransitKey+"!="+c.Key.Name).
		Param("limit", "500").
		SetHeader("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	var list metav1.PartialObjectMetadataList
	if err != nil || json.Unmarshal(raw, &list) != nil {
		return nil
	}
	var names []string
	for _, s := range list.Items {
		mount, found := s.Annotations[ciphertext.AnnotationTransitMount]
		if !found {
			mount = ciphertext.DefaultTransitMount
		}
		if name := s.Labels[ciphertext.LabelTransitKey]; mount == c.Key.Mount && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names[:min(len(names), maxOtherKeys)]
}

func (c *classCheck) checkKey(ctx context.Context) result.Finding {
	if f, refused := c.refuseNamespace(); refused {
		return f
	}
	missing := func() result.Finding {
		if f, found := c.keyOfSecret(ctx); found {
			return f
		}
		return result.Brokenf("%s does not exist", c.Key).
			WithAdvice("check transitKey and transitMount in the class first; ciphertext of a deleted key cannot be " +
				"decrypted any more; " + c.ownerAdvice())
	}
	session, err := c.session(c.VaultNamespace)
	if err == nil {
		var info transit.KeyInfo
		info, err = session.Key(ctx, c.Key)
		switch {
		case err == nil && (!info.SupportsEncryption || !info.SupportsDerivation):
			return result.Brokenf("%s is of type %s, which cannot encrypt for a location: aes256-gcm96 can, for example", c.Key,
				info.Type).WithAdvice(anotherKey)
		case err == nil:
			return c.checkDerivation(ctx, info.Derived, fmt.Sprintf("%s, newest version %d", c.Key, info.Latest))
		case errors.Is(err, transit.ErrNotFound):
			return missing()
		}
	}
	why := "no Vault token to read " + c.Key.String() + " (log in with: vault login)"
	if errors.Is(err, transit.ErrDenied) || errors.Is(err, transit.ErrInvalidToken) {
		why = "your Vault token may not read " + c.Key.String()
	} else if !errors.Is(err, errNoToken) {
		why = result.VaultMessage(err)
	}
	// The responses to a service account that may decrypt are sufficient.
	if l := c.login; l != nil && l.session != nil {
		may, message, err := l.mayDecrypt(ctx, c.Key)
		switch {
		case err != nil || !may:
		case strings.Contains(message, "key not found"), strings.Contains(message, "no handler"):
			return missing()
		case strings.Contains(message, "missing 'context'"):
			return c.checkDerivation(ctx, true, c.Key.String())
		case strings.Contains(message, "invalid ciphertext length"):
			return c.checkDerivation(ctx, false, c.Key.String())
		}
	}
	return result.Unknownf("%s", why)
}

const anotherKey = "a key cannot be changed that way: its owner decides which other key the class may use; " +
	"then set transitKey in the class and encrypt the values again (secretmanager encrypt)"

// checkDerivation checks whether the key fits the scope.
func (c *classCheck) checkDerivation(ctx context.Context, derived bool, detail string) result.Finding {
	switch {
	case !derived && c.Scope != ciphertext.None:
		return result.Brokenf("%s is not derived, so nothing binds ciphertext to its location, and scope %s does not work",
			c.Key, c.Scope).
			WithAdvice(anotherKey + ". Or, for ciphertext made elsewhere, scope: none in the class")
	case derived && c.Scope == ciphertext.None:
		return c.scopeNone(ctx, result.Brokenf("%s is derived, and scope none does not work with a derived key", c.Key))
	case derived:
		return result.OKf("%s, derived", detail)
	}
	return result.OKf("%s, not derived, for scope none", detail)
}

// encrypt returns the command that encrypts entries of the Secret: ENTRY=FILE, as --from-file takes them.
func (c *classCheck) encrypt(files ...string) string {
	var words []string
	for _, file := range files {
		words = append(words, "--from-file", file)
	}
	return c.encryptWords(words...)
}

func (c *classCheck) encryptWords(flags ...string) string {
	words := []string{"encrypt", c.Secret, "-n", c.Namespace, "--transit-key", c.Key.Name}
	if c.Key.Mount != ciphertext.DefaultTransitMount {
		words = append(words, "--transit-mount", c.Key.Mount)
	}
	if c.Scope != ciphertext.Strict {
		words = append(words, "--scope", string(c.Scope))
	}
	return c.vaultEnv() + c.program() + " " + result.Command(append(words, flags...)...)
}

// checkLabel compares the labels and annotations of the Secret, by which the rotator finds and
// rewraps it, with the class.
func (c *classCheck) checkLabel(ctx context.Context) result.Finding {
	if c.secret == nil {
		return result.Unknownf("the Secret could not be read")
	}
	have := c.secret.Labels[ciphertext.LabelTransitKey]
	label := c.kubectl("label", "secret", c.secret.Name, ciphertext.LabelTransitKey+"="+c.Key.Name)
	if have == "" {
		return result.Brokenf("label %s is missing: the rotator does not find the Secret, and will retire its key "+
			"version", ciphertext.LabelTransitKey).WithFix(label)
	}
	set, err := ciphertext.SettingsOf(c.secret)
	if err != nil {
		return result.Brokenf("%s", strings.ReplaceAll(err.Error(), "\n", "; ")).WithInspect(c.kubectl("get", "secret",
			c.secret.Name, "-o",
			"jsonpath={.metadata}"))
	}
	var problems []string
	for _, s := range []struct{ what, secret, class, parameter string }{
		{"label " + ciphertext.LabelTransitKey, set.Key.Name, c.Key.Name, "transitKey"},
		{"annotation " + ciphertext.AnnotationTransitMount, set.Key.Mount, c.Key.Mount, "transitMount"},
		{"annotation " + ciphertext.AnnotationScope, string(set.Scope), string(c.Scope), "scope"},
	} {
		if s.secret != s.class {
			problems = append(problems, fmt.Sprintf("%s of the Secret is %s, but %s of the class is %s", s.what, s.secret,
				s.parameter, s.class))
		}
	}
	if len(problems) > 0 {
		return c.wrongLabels(ctx, problems, set)
	}
	return result.OKf("key %s, scope %s, as in the class", c.Key, set.Scope)
}

// checkDecrypts rewraps the entries with the settings of the class, and discards the result.
func (c *classCheck) checkDecrypts(ctx context.Context) result.Finding {
	if c.secret == nil {
		return result.Unknownf("the Secret could not be read")
	}
	if f, refused := c.refuseNamespace(); refused {
		return f
	}
	session, err := c.session(c.VaultNamespace)
	if err != nil {
		return result.Unknownf("no Vault token to rewrap with (log in with: vault login)")
	}
	secret := c.selected(ciphertext.Settings{Key: c.Key, Scope: c.Scope})
	err = secretmanager.Verify(ctx, session, secret)
	set, setErr := ciphertext.SettingsOf(c.secret)
	if errors.Is(err, secretmanager.ErrNotVerified) && c.causes[c.subject+"/label"] != "" && setErr == nil &&
		c.decryptsWith(ctx, set) == OK {
		f := result.Unknownf("depends on label: the entries decrypt with what the Secret says")
		f.Cause = "label"
		return f
	}
	switch {
	case err == nil:
		return result.OKf("%d of its entries decrypt at their location (verified by a rewrap)", len(secret.Data))
	case errors.Is(err, secretmanager.ErrNotVerified):
		bad := c.notDecrypting(ctx, secret)
		return result.Brokenf("%s", result.OneLine(err)).WithFix(c.encryptFixes(bad)...).
			WithAdvice("the ciphertext is from another location, or of another key; " + asksForValue)
	case errors.Is(err, transit.ErrDenied), errors.Is(err, transit.ErrInvalidToken):
		return result.Unknownf("your Vault token may not rewrap with %s", c.Key)
	}
	return result.Unknownf("%s", result.OneLine(err))
}

// selected returns the Secret with other settings, and only the entries that the class names.
func (c *classCheck) selected(settings ciphertext.Settings) *corev1.Secret {
	secret := c.secret.DeepCopy()
	settings.Apply(secret)
	if c.entries != nil {
		for entry := range secret.Data {
			if !slices.Contains(c.entries, entry) {
				delete(secret.Data, entry)
			}
		}
	}
	return secret
}

// notDecrypting returns the entries that do not decrypt.
func (c *classCheck) notDecrypting(ctx context.Context, secret *corev1.Secret) (entries []string) {
	session, err := c.session(c.VaultNamespace)
	if err != nil {
		return nil
	}
	for _, entry := range ciphertext.Entries(secret.Data) {
		one := secret.DeepCopy()
		one.Data = map[string][]byte{entry: secret.Data[entry]}
		if errors.Is(secretmanager.Verify(ctx, session, one), secretmanager.ErrNotVerified) {
			entries = append(entries, entry)
		}
	}
	return entries
}

// decryptsWith returns whether the entries decrypt with settings.
func (c *classCheck) decryptsWith(ctx context.Context, settings ciphertext.Settings) State {
	session, err := c.session(c.VaultNamespace)
	if err != nil {
		return Unknown
	}
	switch err := secretmanager.Verify(ctx, session, c.selected(settings)); {
	case err == nil:
		return OK
	case errors.Is(err, secretmanager.ErrNotVerified):
		return Broken
	}
	return Unknown
}

// keyOfSecret returns the finding for a key that does not exist, where the Secret names another one that does.
func (c *classCheck) keyOfSecret(ctx context.Context) (f result.Finding, found bool) {
	secret, err := c.Kube.CoreV1().Secrets(c.Namespace).Get(ctx, c.Secret, metav1.GetOptions{})
	if err != nil {
		return result.Finding{}, false
	}
	set, err := ciphertext.SettingsOf(secret)
	if err != nil || set.Key == c.Key {
		return result.Finding{}, false
	}
	session, err := c.session(c.VaultNamespace)
	if err != nil {
		return result.Finding{}, false
	}
	if _, err := session.Key(ctx, set.Key); err != nil {
		return result.Finding{}, false
	}
	f = result.Brokenf("%s does not exist; Secret %s was encrypted with %s, which does", c.Key, c.Secret, set.Key)
	return f.WithFix(c.settingsInClass(set)...), true
}

// scopeNone adds the fix for a class with scope none, whose key needs another one: that with which the Secret decrypts,
// or which it says.
func (c *classCheck) scopeNone(ctx context.Context, f result.Finding) result.Finding {
	const advice = "set the scope in annotation " + ciphertext.AnnotationScope + " of the Secret"
	secret, err := c.Kube.CoreV1().Secrets(c.Namespace).Get(ctx, c.Secret, metav1.GetOptions{})
	if err != nil {
		return f.WithAdvice(advice)
	}
	set, err := ciphertext.SettingsOf(secret)
	if err != nil {
		return f.WithAdvice(advice)
	}
	c.secret = secret
	for _, scope := range []ciphertext.Scope{ciphertext.Strict, ciphertext.Namespace, ciphertext.Cluster} {
		desired := ciphertext.Settings{Key: c.Key, Scope: scope}
		if c.decryptsWith(ctx, desired) != OK {
			continue
		}
		f.Detail += "; the Secret decrypts with scope " + string(scope)
		f = f.WithFix(c.replaceParameter("scope", string(c.Scope), string(scope)))
		if set.Scope != scope {
			f = f.WithFix(c.settingsInSecret(set, desired)...)
		}
		return f
	}
	if set.Scope != ciphertext.None {
		return f.WithFix(c.replaceParameter("scope", string(c.Scope), string(set.Scope)))
	}
	return f.WithAdvice(advice)
}
