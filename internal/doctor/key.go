package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
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

func (c *classCheck) checkKey(ctx context.Context) finding {
	if f, refused := c.refuseNamespace(); refused {
		return f
	}
	missing := func() finding {
		return brokenf("%s does not exist", c.Key).
			withAdvice("check transitKey and transitMount in the class first; ciphertext of a deleted key cannot be " +
				"decrypted any more; " + c.ownerAdvice())
	}
	session, err := c.session(c.VaultNamespace)
	if err == nil {
		var info transit.KeyInfo
		info, err = session.Key(ctx, c.Key)
		switch {
		case err == nil && (!info.SupportsEncryption || !info.SupportsDerivation):
			return brokenf("%s is of type %s, which cannot encrypt for a location: aes256-gcm96 can, for example", c.Key,
				info.Type).withAdvice(anotherKey)
		case err == nil:
			return c.checkDerivation(info.Derived, fmt.Sprintf("%s, newest version %d", c.Key, info.Latest))
		case errors.Is(err, transit.ErrNotFound):
			return missing()
		}
	}
	why := "no Vault token to read " + c.Key.String() + " (log in with: vault login)"
	if errors.Is(err, transit.ErrDenied) || errors.Is(err, transit.ErrInvalidToken) {
		why = "your Vault token may not read " + c.Key.String()
	} else if !errors.Is(err, errNoToken) {
		why = vaultMessage(err)
	}
	// The responses to a service account that may decrypt are sufficient.
	if l := c.login; l != nil && l.session != nil {
		may, message, err := l.mayDecrypt(ctx, c.Key)
		switch {
		case err != nil || !may:
		case strings.Contains(message, "key not found"), strings.Contains(message, "no handler"):
			return missing()
		case strings.Contains(message, "missing 'context'"):
			return c.checkDerivation(true, c.Key.String())
		case strings.Contains(message, "invalid ciphertext length"):
			return c.checkDerivation(false, c.Key.String())
		}
	}
	return unknownf("%s", why)
}

const anotherKey = "a key cannot be changed that way: its owner decides which other key the class may use; " +
	"then set transitKey in the class and encrypt the values again (secretmanager encrypt)"

// checkDerivation checks whether the key fits the scope.
func (c *classCheck) checkDerivation(derived bool, detail string) finding {
	switch {
	case !derived && c.Scope != ciphertext.None:
		return brokenf("%s is not derived, so nothing binds ciphertext to its location, and scope %s does not work", c.Key,
			c.Scope).
			withAdvice(anotherKey + ". Or, for ciphertext made elsewhere, scope: none in the class")
	case derived && c.Scope == ciphertext.None:
		return brokenf("%s is derived, and scope none does not work with a derived key", c.Key).
			withFix(c.setParameter("scope", string(ciphertext.Strict))).
			withAdvice("or to the scope in annotation " + ciphertext.AnnotationScope + " of the Secret")
	case derived:
		return okf("%s, derived", detail)
	}
	return okf("%s, not derived, for scope none", detail)
}

// encrypt returns the command that encrypts entries of the Secret.
func (c *classCheck) encrypt(entries ...string) string {
	words := []string{"encrypt", c.Secret, "-n", c.Namespace, "--transit-key", c.Key.Name}
	if c.Key.Mount != ciphertext.DefaultTransitMount {
		words = append(words, "--transit-mount", c.Key.Mount)
	}
	if c.Scope != ciphertext.Strict {
		words = append(words, "--scope", string(c.Scope))
	}
	if len(entries) == 0 {
		entries = []string{"ENTRY"}
	}
	for _, entry := range entries {
		words = append(words, "--from-file", entry+"=FILE")
	}
	return c.vaultEnv() + c.program() + " " + command(words...)
}

func (c *classCheck) checkSecret(ctx context.Context) finding {
	secret, err := c.Kube.CoreV1().Secrets(c.Namespace).Get(ctx, c.Secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return brokenf("Secret %s does not exist in namespace %s", c.Secret, c.Namespace).withFix(c.encrypt(c.entries...)).
			withAdvice("FILE has the value of the entry; check secretName in the class first")
	}
	if err != nil {
		return requestFailed("get secrets -n "+c.Namespace, err)
	}
	c.secret = secret
	entries := c.entries
	if entries == nil {
		entries = ciphertext.Entries(secret.Data)
	}
	var problems, invalid []string
	for _, entry := range entries {
		text, found := secret.Data[entry]
		if !found {
			problems = append(problems, fmt.Sprintf("entry %q, which the class names, does not exist", entry))
			invalid = append(invalid, entry)
		} else if _, err := ciphertext.Version(text); err != nil {
			problems, invalid = append(problems, fmt.Sprintf("entry %q %s", entry, err)), append(invalid, entry)
		}
	}
	if len(secret.Data) == 0 {
		problems = append(problems, "it has no entries")
	}
	if len(problems) > 0 {
		return brokenf("Secret %s/%s: %s", secret.Namespace, secret.Name, strings.Join(problems, "; ")).
			withFix(c.encrypt(invalid...)).
			withAdvice("FILE has the value of the entry")
	}
	return okf("Secret %s/%s with entries %s", secret.Namespace, secret.Name,
		clip(strings.Join(ciphertext.Entries(secret.Data), ", ")))
}

// checkLabel compares the labels and annotations of the Secret, by which the rotator finds and
// rewraps it, with the class.
func (c *classCheck) checkLabel(context.Context) finding {
	if c.secret == nil {
		return unknownf("the Secret could not be read")
	}
	have := c.secret.Labels[ciphertext.LabelTransitKey]
	label := c.kubectl("label", "secret", c.secret.Name, ciphertext.LabelTransitKey+"="+c.Key.Name)
	if have == "" {
		return brokenf("label %s is missing: the rotator does not find the Secret, and will retire its key "+
			"version", ciphertext.LabelTransitKey).withFix(label)
	}
	set, err := ciphertext.SettingsOf(c.secret)
	if err != nil {
		return brokenf("%s", strings.ReplaceAll(err.Error(), "\n", "; ")).withFix(c.kubectl("edit", "secret", c.secret.Name))
	}
	var problems, fix []string
	for _, s := range []struct{ what, secret, class, parameter string }{
		{"label " + ciphertext.LabelTransitKey, set.Key.Name, c.Key.Name, "transitKey"},
		{"annotation " + ciphertext.AnnotationTransitMount, set.Key.Mount, c.Key.Mount, "transitMount"},
		{"annotation " + ciphertext.AnnotationScope, string(set.Scope), string(c.Scope), "scope"},
	} {
		if s.secret != s.class {
			problems = append(problems, fmt.Sprintf("%s of the Secret is %s, but %s of the class is %s", s.what, s.secret,
				s.parameter, s.class))
			fix = append(fix, c.setParameter(s.parameter, s.secret))
		}
	}
	if len(problems) > 0 {
		return brokenf("%s", strings.Join(problems, "; ")).withFix(fix...).
			withAdvice("the Secret has what it was encrypted with; a pod's volumeAttributes override the class")
	}
	return okf("key %s, scope %s, as in the class", c.Key, set.Scope)
}

// checkDecrypts rewraps the entries with the settings of the class, and discards the result.
func (c *classCheck) checkDecrypts(ctx context.Context) finding {
	if c.secret == nil {
		return unknownf("the Secret could not be read")
	}
	if f, refused := c.refuseNamespace(); refused {
		return f
	}
	session, err := c.session(c.VaultNamespace)
	if err != nil {
		return unknownf("no Vault token to rewrap with (log in with: vault login)")
	}
	secret := c.secret.DeepCopy()
	ciphertext.Settings{Key: ciphertext.Key{Mount: c.Key.Mount, Name: c.Key.Name}, Scope: c.Scope}.Apply(secret)
	if c.entries != nil {
		for entry := range secret.Data {
			if !slices.Contains(c.entries, entry) {
				delete(secret.Data, entry)
			}
		}
	}
	err = secretmanager.Verify(ctx, session, secret)
	switch {
	case err == nil:
		return okf("%d of its entries decrypt at their location (verified by a rewrap)", len(secret.Data))
	case errors.Is(err, secretmanager.ErrNotVerified):
		return brokenf("%s", oneLine(err)).withFix(c.encrypt(ciphertext.Entries(secret.Data)...)).
			withAdvice("FILE has the value of the entry")
	case errors.Is(err, transit.ErrDenied), errors.Is(err, transit.ErrInvalidToken):
		return unknownf("your Vault token may not rewrap with %s", c.Key)
	}
	return unknownf("%s", oneLine(err))
}
