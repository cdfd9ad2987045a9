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
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/rotation"
	"github.com/secretmanager-io/secretmanager/internal/vaultsetup"
	"github.com/secretmanager-io/secretmanager/transit"
)

var errNoAccount = errors.New("name the service account of the pods with --service-account")

// tokenSeconds is the lifetime of the service account token, the shortest that the API server allows.
const tokenSeconds = 600

// login is the result of the one login to Vault as the service account.
type login struct {
	session *transit.Session // nil if it failed
	err     error            // why it failed
	refused bool             // Vault refused the login
}

// rolePath returns the path of the role in Vault.
func (c *classCheck) rolePath() string { return "auth/" + c.AuthMount + "/role/" + c.Class.Role }

// loginAsPod logs in to Vault once, as the provider does for the pod.
func (c *classCheck) loginAsPod(ctx context.Context) *login {
	if c.login != nil {
		return c.login
	}
	c.login = &login{}
	switch {
	case !c.Login:
		c.login.err = errors.New("not tried: --login=false")
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
	if pod := c.target.pod; pod != nil && !c.target.fromTemplate {
		// As the kubelet requests it: the token is valid as long as the pod exists.
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod",
			Name: pod.Name, UID: pod.UID}
	}
	granted, err := c.Kube.CoreV1().ServiceAccounts(c.Namespace).
		CreateToken(ctx, c.account, request, metav1.CreateOptions{})
	if err != nil {
		c.login.err = errors.New(
			result.RequestFailed("create serviceaccounts --subresource=token -n "+c.Namespace, err).Detail)
		return c.login
	}
	token, err := c.vault.client.Login(ctx, transit.Login{
		Namespace: c.VaultNamespace, Mount: c.AuthMount, Role: c.Class.Role,
		JWT: func() (string, error) { return granted.Status.Token, nil },
	})
	if err != nil {
		var e *transit.Error
		// A kubernetes mount refuses some logins with status 500.
		c.login.err, c.login.refused = err, errors.As(err, &e) && e.Status >= 400 &&
			!errors.Is(err, transit.ErrSealed) && !errors.Is(err, transit.ErrBusy)
		return c.login
	}
	c.login.session = c.vault.client.Session(c.VaultNamespace, transit.StaticToken(token.Value))
	return c.login
}

// checkRotatorRole checks the role of the rotator with the user's token.
func (w *run) checkRotatorRole(ctx context.Context) result.Finding {
	namespaces := []string{w.VaultNamespace}
	if w.provider.known {
		namespaces = append(namespaces, w.provider.settings.VaultNamespace)
	}
	return w.rotation.CheckRole(ctx, rotation.Vault{Namespace: w.vault.namespace, Namespaces: namespaces,
		Read: w.read, ReadError: readError, Session: w.session,
		Binding: func(data map[string]any, mount, role string, account vaultsetup.Account) result.Finding {
			in := *w
			in.Namespace = account.Namespace
			c := &classCheck{run: &in, account: account.Name, role: data}
			c.Class.Role, c.AuthMount = role, mount
			return c.checkBinding()
		}})
}

// deniedCheck returns the check that a refused login is about, by the messages of Vault's two types of
// auth mount.
func deniedCheck(err error) string {
	message := err.Error()
	for _, known := range []struct{ text, check string }{
		{"invalid role name", "role"}, {"could not be found", "role"}, {"not authorized", "role"},
		{"subject (sub) claim", "role"}, {"sub claim", "role"}, {"bound claim", "role"},
		{"audience", "audience"}, {"(aud)", "audience"},
	} {
		if strings.Contains(message, known.text) {
			return known.check
		}
	}
	return "login"
}

func (c *classCheck) checkRole(ctx context.Context) result.Finding {
	data, err := c.read(ctx, c.VaultNamespace, c.rolePath())
	switch {
	case err == nil && data == nil:
		return c.withRoles(ctx, c.roleMissing())
	case err == nil:
		c.role = data
		f := c.checkBinding()
		if f.State == Broken {
			f = c.withRoles(ctx, f)
		}
		return f
	}
	// A login reports whether the role exists, without the right to read it.
	l := c.loginAsPod(ctx)
	switch {
	case l.session != nil:
		return result.OKf("%s accepts service account %s", c.rolePath(), c.account)
	case l.refused && deniedCheck(l.err) == "role":
		if isRoleMissing(l.err) {
			return c.withRoles(ctx, c.roleMissing())
		}
		return c.withRoles(ctx, c.roleRejects(result.VaultMessage(l.err)))
	case l.refused && deniedCheck(l.err) == "audience":
		return result.OKf("%s exists", c.rolePath())
	case l.refused:
		return result.Unknownf("%s, and the login failed for another reason", readError(c.rolePath(), err))
	}
	_, loginErr := c.vault.client.Login(ctx,
		transit.Login{Namespace: c.VaultNamespace, Mount: c.AuthMount, Role: c.Class.Role,
			JWT: func() (string, error) { return "none", nil }}) // Vault looks up the role before it reads the token
	if loginErr != nil && isRoleMissing(loginErr) {
		return c.withRoles(ctx, c.roleMissing())
	}
	return result.Unknownf("%s; a login would determine it, but: %s", readError(c.rolePath(), err), result.OneLine(l.err))
}

// isRoleMissing reports whether a login failed because the role does not exist.
func isRoleMissing(err error) bool {
	return strings.Contains(err.Error(), "invalid role name") || strings.Contains(err.Error(), "could not be found")
}

func (c *classCheck) roleMissing() result.Finding {
	return result.Brokenf("%s does not exist", c.rolePath()).
		WithAdvice("if it is mistyped in the class, correct roleName there; " + c.ownerAdvice())
}

// roleRejects returns the finding for a role that does not accept the service account.
func (c *classCheck) roleRejects(why string) result.Finding {
	return result.Brokenf("%s does not accept service account %s/%s: %s", c.rolePath(), c.Namespace, c.account, why).
		WithAdvice("if the service account has another role, set roleName in the class to it; otherwise " + c.ownerAdvice())
}

// checkBinding checks whether the role accepts the service account.
func (c *classCheck) checkBinding() result.Finding {
	if c.account == "" {
		return result.Unknownf("%s exists; to check whether it accepts the service account, %s", c.rolePath(), errNoAccount)
	}
	subject := "system:serviceaccount:" + c.Namespace + ":" + c.account
	if _, jwt := c.role["role_type"]; jwt {
		bound := vaultsetup.Texts(c.role["bound_subject"])
		claims, _ := c.role["bound_claims"].(map[string]any)
		switch {
		case len(bound) > 0 && bound[0] != subject:
			return c.roleRejects("its bound_subject is " + bound[0])
		case len(bound) == 0 && len(claims) > 0:
			return result.Unknownf("%s is bound by claims, which only a login can check", c.rolePath())
		}
		return result.OKf("%s accepts service account %s", c.rolePath(), c.account)
	}
	names, namespaces := vaultsetup.Texts(c.role["bound_service_account_names"]), vaultsetup.Texts(
		c.role["bound_service_account_namespaces"])
	selector := vaultsetup.Texts(c.role["bound_service_account_namespace_selector"])
	switch {
	case !slices.ContainsFunc(names, matches(c.account)):
		return c.roleRejects(fmt.Sprintf("its bound_service_account_names are %q", names))
	case !slices.ContainsFunc(namespaces, matches(c.Namespace)) && len(selector) > 0:
		return result.Unknownf("%s is bound to namespaces by a selector, which only a login can check", c.rolePath())
	case !slices.ContainsFunc(namespaces, matches(c.Namespace)):
		return c.roleRejects(fmt.Sprintf("its bound_service_account_namespaces are %q", namespaces))
	}
	f := result.OKf("%s accepts service account %s", c.rolePath(), c.account)
	if slices.Contains(names, "*") || slices.Contains(namespaces, "*") {
		f = f.WithWarning(fmt.Sprintf("it also accepts others: its bound names are %q in namespaces %q", names, namespaces))
	}
	return f
}

// matches returns Vault's comparison of a bound name, which may begin or end with *.
func matches(name string) func(string) bool {
	return func(bound string) bool {
		ok, err := path.Match(bound, name)
		return err == nil && ok
	}
}

func (c *classCheck) checkAudience(ctx context.Context) result.Finding {
	broken := func(why string) result.Finding {
		return result.Brokenf("%s", why).
			WithAdvice("set the parameter audience of the class to one that the role accepts and the CSIDriver has; " +
				"or the owner of " + c.rolePath() + " adds that audience to the role")
	}
	if c.role != nil {
		field := "audience"
		if _, jwt := c.role["role_type"]; jwt {
			field = "bound_audiences"
		}
		have := vaultsetup.Texts(c.role[field])
		switch {
		case len(have) == 0:
			return result.OKf("the role accepts any").
				WithWarning("the role accepts tokens for audiences other than Vault: set its " + field)
		case c.Audience != "" && !slices.Contains(have, c.Audience):
			return broken(fmt.Sprintf("the role accepts tokens for %s, and the pod's is for %s", strings.Join(have, ", "),
				c.Audience))
		}
		return result.OKf("%s", strings.Join(have, ", "))
	}
	l := c.loginAsPod(ctx)
	switch {
	case l.session != nil:
		return result.OKf("%s", audienceName(c.Audience))
	case l.refused && deniedCheck(l.err) == "audience":
		return broken(fmt.Sprintf("the role does not accept tokens for %s: %s", audienceName(c.Audience),
			result.VaultMessage(l.err)))
	}
	return result.Unknownf("the role could not be read, and no login determined it")
}

func (c *classCheck) checkLogin(ctx context.Context) result.Finding {
	l := c.loginAsPod(ctx)
	switch {
	case l.session != nil:
		return result.OKf("service account %s logs in as role %s", c.account, c.Class.Role)
	case !l.refused:
		return result.Unknownf("%s", result.VaultMessage(l.err))
	}
	if cause := c.causes["/vault-clock"]; cause != "" {
		f := result.Unknownf("depends on %s: %s", cause, result.VaultMessage(l.err))
		f.Cause = cause
		return f
	}
	f := result.Brokenf("service account %s cannot log in as role %s: %s", c.account, c.Class.Role,
		result.VaultMessage(l.err))
	if strings.Contains(l.err.Error(), "could not load backend configuration") {
		return c.configureAuth(f, c.VaultNamespace, c.AuthMount)
	}
	return f.WithInspect(c.vaultEnv() + result.Command("vault", "read", "auth/"+c.AuthMount+"/config")).WithAdvice(
		"Vault must reach the API server at kubernetes_host and have the right to review tokens " +
			"(ClusterRole system:auth-delegator), or, at a jwt mount, have the cluster's keys")
}

// invalidCiphertext is too short for a ciphertext. Vault checks policy and key before it decodes it.
var invalidCiphertext = []transit.Item{{Data: []byte("vault:v1:AAAA")}}

// mayDecrypt asks Vault to decrypt invalid ciphertext, and returns Vault's message. Reading the
// capabilities would be simpler, but takes the default policy, which roles of vault-setup do not
// have.
func (l *login) mayDecrypt(ctx context.Context, k ciphertext.Key) (may bool, message string, err error) {
	results, err := l.session.Decrypt(ctx, k, invalidCiphertext)
	var e *transit.Error
	switch {
	case err == nil && results[0].Err != nil:
		return true, results[0].Err.Error(), nil
	case err == nil:
		return true, "", nil
	case errors.Is(err, transit.ErrDenied):
		return false, "", nil
	case errors.Is(err, transit.ErrNotFound), errors.As(err, &e) && e.Status == http.StatusBadRequest:
		return true, result.VaultMessage(err), nil
	}
	return false, "", err
}

func (c *classCheck) checkPolicy(ctx context.Context) result.Finding {
	decrypt := c.Key.Mount + "/decrypt/" + c.Key.Name
	denied := func() result.Finding {
		return result.Brokenf("no policy of role %s grants update on %s", c.Class.Role, decrypt).WithAdvice(c.ownerAdvice())
	}
	l := c.loginAsPod(ctx)
	if l.session == nil {
		return c.readPolicies(ctx, denied)
	}
	may, _, err := l.mayDecrypt(ctx, c.Key)
	switch {
	case err != nil:
		return result.Unknownf("trying %s: %s", decrypt, result.VaultMessage(err))
	case !may:
		return denied()
	}
	f := result.OKf("the role may decrypt with %s", c.Key)
	const advice = "use one key for each team or namespace, and give the role the policy of this key only"
	other := c.Key
	other.Name = "secretmanager-doctor-asks-for-no-key"
	if may, _, err := l.mayDecrypt(ctx, other); err == nil && may {
		return f.WithWarning("the role may decrypt with any key of " + c.Key.Mount + "; " + advice)
	}
	var also []string
	for _, name := range c.otherKeys(ctx) {
		other.Name = name
		if may, _, err := l.mayDecrypt(ctx, other); err == nil && may {
			also = append(also, name)
		}
	}
	if len(also) > 0 {
		return f.WithWarning("the role may also decrypt with " + strings.Join(also, ", ") + "; " + advice)
	}
	f.Detail += ", and not with others"
	return f
}

// readPolicies compares the policies of the role with that of vault-setup, where no login succeeded.
// It does not interpret other policies.
func (c *classCheck) readPolicies(ctx context.Context, denied func() result.Finding) result.Finding {
	if c.role == nil {
		return result.Unknownf("no login succeeded, and the role could not be read")
	}
	setup := vaultsetup.Setup{Key: c.Key, AuthMount: c.AuthMount, AuthType: vaultsetup.AuthKubernetes, Audience: "vault"}
	ours := setup.Policies()[0]
	names := vaultsetup.Texts(c.role["token_policies"])
	missing := 0
	for _, name := range names {
		data, err := c.read(ctx, c.VaultNamespace, "sys/policies/acl/"+name)
		switch {
		case err != nil:
			return result.Unknownf("%s", readError("sys/policies/acl/"+name, err))
		case data == nil:
			missing++
		case data["policy"] == ours.HCL():
			return result.OKf("the role has policy %s", name)
		}
	}
	if missing == len(names) {
		return denied()
	}
	return result.Unknownf("vault-setup did not write the policies of the role (%s): only a login can check them",
		strings.Join(names, ", "))
}
