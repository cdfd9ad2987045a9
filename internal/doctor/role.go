package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/vaultsetup"
	"github.com/secretmanager-io/secretmanager/transit"
)

// tokenSeconds is the life of the service-account token; the API server gives no less.
const tokenSeconds = 600

// login is a login to Vault as the service account. It is tried once.
type login struct {
	session *transit.Session // nil if it failed
	err     error            // why
	refused bool             // it was Vault that refused
}

// rolePath is the path of the role.
func (c *class) rolePath() string { return "auth/" + c.AuthMount + "/role/" + c.Class.Role }

// asPod logs in to Vault as the provider would do it for the pod.
func (c *class) asPod(ctx context.Context) *login {
	if c.login != nil {
		return c.login
	}
	c.login = &login{}
	switch {
	case !c.Login:
		c.login.err = errors.New("it is not tried, with --login=false")
		return c.login
	case c.account == "":
		c.login.err = errNoAccount
		return c.login
	}
	seconds := int64(tokenSeconds)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	if c.Audience != "" {
		request.Spec.Audiences = []string{c.Audience}
	}
	if pod := c.subject.pod; pod != nil {
		// As the kubelet does it: the token ends with the pod.
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod",
			Name: pod.Name, UID: pod.UID}
	}
	granted, err := c.Kube.CoreV1().ServiceAccounts(c.Namespace).
		CreateToken(ctx, c.account, request, metav1.CreateOptions{})
	if err != nil {
		c.login.err = errors.New(unseen("create serviceaccounts --subresource=token -n "+c.Namespace, err).detail)
		return c.login
	}
	token, err := c.vault.client.Login(ctx, transit.Login{
		Namespace: c.VaultNamespace, Mount: c.AuthMount, Role: c.Class.Role,
		JWT: func() (string, error) { return granted.Status.Token, nil },
	})
	if err != nil {
		var e *transit.Error
		// A kubernetes mount says some of its refusals with a 500.
		c.login.err, c.login.refused = err, errors.As(err, &e) && e.Status >= 400 &&
			!errors.Is(err, transit.ErrSealed) && !errors.Is(err, transit.ErrBusy)
		return c.login
	}
	c.login.session = c.vault.client.Session(c.VaultNamespace, transit.StaticToken(token.Value))
	return c.login
}

// causeOf is the check that a refused login speaks of, in the words of Vault's two
// kinds of auth mount.
func causeOf(err error) string {
	words := err.Error()
	for _, of := range []struct{ text, check string }{
		{"invalid role name", "role"}, {"could not be found", "role"}, {"not authorized", "role"},
		{"subject (sub) claim", "role"}, {"sub claim", "role"}, {"bound claim", "role"},
		{"audience", "audience"}, {"(aud)", "audience"},
	} {
		if strings.Contains(words, of.text) {
			return of.check
		}
	}
	return "login"
}

func (c *class) checkRole(ctx context.Context) finding {
	data, err := c.read(ctx, c.VaultNamespace, c.rolePath())
	switch {
	case err == nil && data == nil:
		return c.noRole()
	case err == nil:
		c.role = data
		return c.judgeBinding()
	}
	// Without the right to read it, Vault's answer to a login tells.
	l := c.asPod(ctx)
	switch {
	case l.session != nil:
		return okf("%s takes service account %s", c.rolePath(), c.account)
	case l.refused && causeOf(l.err) == "role":
		if strings.Contains(l.err.Error(), "invalid role name") || strings.Contains(l.err.Error(), "could not be found") {
			return c.noRole()
		}
		return c.otherRole(vaultWords(l.err))
	case l.refused && causeOf(l.err) == "audience":
		return okf("%s is there", c.rolePath())
	case l.refused:
		return unknownf("%s, and the login does not tell", unread(c.rolePath(), err))
	}
	_, none := c.vault.client.Login(ctx, transit.Login{Namespace: c.VaultNamespace, Mount: c.AuthMount, Role: c.Class.Role,
		JWT: func() (string, error) { return "none", nil }}) // the role is looked for before the token is looked at
	if none != nil &&
		(strings.Contains(none.Error(), "invalid role name") || strings.Contains(none.Error(), "could not be found")) {
		return c.noRole()
	}
	return unknownf("%s; a login would tell, but %s", unread(c.rolePath(), err), oneLine(l.err))
}

func (c *class) noRole() finding {
	return brokenf("there is no %s; if it is mistyped in the class, correct roleName there", c.rolePath()).
		withAdvice(c.decides())
}

// otherRole is the finding for a role that does not take the account.
func (c *class) otherRole(why string) finding {
	return brokenf("%s does not take service account %s/%s: %s", c.rolePath(), c.Namespace, c.account, why).
		withAdvice("if there is a role for the service account, set roleName in the class to it; otherwise " + c.decides())
}

// judgeBinding looks whether the role takes the service account.
func (c *class) judgeBinding() finding {
	if c.account == "" {
		return unknownf("%s is there; %s, to see whether it takes it", c.rolePath(), errNoAccount)
	}
	subject := "system:serviceaccount:" + c.Namespace + ":" + c.account
	if _, jwt := c.role["role_type"]; jwt {
		bound := texts(c.role["bound_subject"])
		claims, _ := c.role["bound_claims"].(map[string]any)
		switch {
		case len(bound) > 0 && bound[0] != subject:
			return c.otherRole("its bound_subject is " + bound[0])
		case len(bound) == 0 && len(claims) > 0:
			return unknownf("%s is bound by claims, which only a login tells about", c.rolePath())
		}
		return okf("%s takes service account %s", c.rolePath(), c.account)
	}
	names, namespaces := texts(c.role["bound_service_account_names"]), texts(c.role["bound_service_account_namespaces"])
	selector := texts(c.role["bound_service_account_namespace_selector"])
	switch {
	case !slices.ContainsFunc(names, matches(c.account)):
		return c.otherRole(fmt.Sprintf("its bound_service_account_names are %q", names))
	case !slices.ContainsFunc(namespaces, matches(c.Namespace)) && len(selector) > 0:
		return unknownf("%s is bound to namespaces by a selector, which only a login tells about", c.rolePath())
	case !slices.ContainsFunc(namespaces, matches(c.Namespace)):
		return c.otherRole(fmt.Sprintf("its bound_service_account_namespaces are %q", namespaces))
	}
	f := okf("%s takes service account %s", c.rolePath(), c.account)
	if slices.Contains(names, "*") || slices.Contains(namespaces, "*") {
		f = f.withWarning(fmt.Sprintf("it takes others too: its bound names are %q in namespaces %q", names, namespaces))
	}
	return f
}

// matches is Vault's comparison of a bound name, which may have a * at its ends.
func matches(name string) func(string) bool {
	return func(bound string) bool {
		ok, err := path.Match(bound, name)
		return err == nil && ok
	}
}

// texts is a list as Vault answers it, or a single text.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		if v != "" {
			return []string{v}
		}
	case []any:
		list := make([]string, 0, len(v))
		for _, x := range v {
			list = append(list, fmt.Sprint(x))
		}
		return list
	}
	return nil
}

func (c *class) checkAudience(ctx context.Context) finding {
	wrong := func(why string) finding {
		return brokenf("%s", why).
			withAdvice("set the parameter audience of the class to one that the role takes, which the CSIDriver " +
				"has to have too; " +
				"or the owner of " + c.rolePath() + " lets it take that one")
	}
	if c.role != nil {
		field := "audience"
		if _, jwt := c.role["role_type"]; jwt {
			field = "bound_audiences"
		}
		have := texts(c.role[field])
		switch {
		case len(have) == 0:
			return okf("the role takes any").
				withWarning("the role takes tokens that were made for others than Vault: set its " + field)
		case c.Audience != "" && !slices.Contains(have, c.Audience):
			return wrong(fmt.Sprintf("the role takes tokens for %s, and the pod's is for %s", strings.Join(have, ", "),
				c.Audience))
		}
		return okf("%s", strings.Join(have, ", "))
	}
	l := c.asPod(ctx)
	switch {
	case l.session != nil:
		return okf("%s", audienceName(c.Audience))
	case l.refused && causeOf(l.err) == "audience":
		return wrong(fmt.Sprintf("the role does not take tokens for %s: %s", audienceName(c.Audience), vaultWords(l.err)))
	}
	return unknownf("neither the role can be read nor a login tells")
}

func (c *class) checkLogin(ctx context.Context) finding {
	l := c.asPod(ctx)
	switch {
	case l.session != nil:
		return okf("service account %s logs in as role %s", c.account, c.Class.Role)
	case !l.refused:
		return unknownf("%s", vaultWords(l.err))
	}
	if fault := c.broken["/vault-clock"]; fault != "" {
		f := unknownf("depends on %s: %s", fault, vaultWords(l.err))
		f.cause = fault
		return f
	}
	fix := c.vaultEnv() + command("vault", "read", "auth/"+c.AuthMount+"/config")
	if strings.Contains(l.err.Error(), "could not load backend configuration") {
		fix = configureAuth(c.VaultNamespace, c.AuthMount) // there is none
	}
	f := brokenf("service account %s cannot log in as role %s: %s", c.account, c.Class.Role, vaultWords(l.err)).
		withFix(fix)
	return f.withAdvice("Vault has to reach the API server at kubernetes_host and may ask it about tokens " +
		"(ClusterRole system:auth-delegator), or, at a jwt mount, know the cluster's keys")
}

// noCiphertext has the form of a ciphertext and is too short for one: Vault looks
// at policy and key before it finds out.
var noCiphertext = []transit.Item{{Data: []byte("vault:v1:AAAA")}}

// mayDecrypt asks Vault to decrypt what is no ciphertext. Asking for the
// capabilities would be simpler, but the role need not have the default policy, which
// allows that; those that vault-setup makes do not.
func (l *login) mayDecrypt(ctx context.Context, k ciphertext.Key) (may bool, words string, err error) {
	results, err := l.session.Decrypt(ctx, k, noCiphertext)
	var e *transit.Error
	switch {
	case err == nil && results[0].Err != nil:
		return true, results[0].Err.Error(), nil
	case err == nil:
		return true, "", nil
	case errors.Is(err, transit.ErrDenied):
		return false, "", nil
	case errors.Is(err, transit.ErrNotFound), errors.As(err, &e) && e.Status == http.StatusBadRequest:
		return true, vaultWords(err), nil
	}
	return false, "", err
}

func (c *class) checkPolicy(ctx context.Context) finding {
	decrypt := c.Key.Mount + "/decrypt/" + c.Key.Name
	denied := func() finding {
		return brokenf("no policy of role %s gives update on %s", c.Class.Role, decrypt).withAdvice(c.decides())
	}
	l := c.asPod(ctx)
	if l.session == nil {
		return c.readPolicies(ctx, denied)
	}
	may, _, err := l.mayDecrypt(ctx, c.Key)
	switch {
	case err != nil:
		return unknownf("asking for %s: %s", decrypt, vaultWords(err))
	case !may:
		return denied()
	}
	f := okf("it may decrypt with %s", c.Key)
	tell := "one key for each team or namespace is the boundary that counts: give the role the policy of this key alone"
	other := c.Key
	other.Name = "secretmanager-doctor-asks-for-no-key"
	if may, _, err := l.mayDecrypt(ctx, other); err == nil && may {
		return f.withWarning("it may decrypt with any key of " + c.Key.Mount + "; " + tell)
	}
	var also []string
	for _, name := range c.otherKeys(ctx) {
		other.Name = name
		if may, _, err := l.mayDecrypt(ctx, other); err == nil && may {
			also = append(also, name)
		}
	}
	if len(also) > 0 {
		return f.withWarning("it may also decrypt with " + strings.Join(also, ", ") + "; " + tell)
	}
	f.detail += ", and not with others"
	return f
}

// readPolicies judges by the text of the policies where a login does not tell. What
// an unknown policy comes to is not for a second reading of Vault's language.
func (c *class) readPolicies(ctx context.Context, denied func() finding) finding {
	if c.role == nil {
		return unknownf("neither a login nor the role tells")
	}
	setup := vaultsetup.Setup{Key: c.Key, AuthMount: c.AuthMount, AuthType: vaultsetup.AuthKubernetes, Audience: "vault"}
	ours := setup.Policies()[0]
	names := texts(c.role["token_policies"])
	missing := 0
	for _, name := range names {
		data, err := c.read(ctx, c.VaultNamespace, "sys/policies/acl/"+name)
		switch {
		case err != nil:
			return unknownf("%s", unread("sys/policies/acl/"+name, err))
		case data == nil:
			missing++
		case data["policy"] == ours.HCL():
			return okf("the role has policy %s", name)
		}
	}
	if missing == len(names) {
		return denied()
	}
	return unknownf("the role's policies (%s) are not those of vault-setup: a login would tell", strings.Join(names, ", "))
}
