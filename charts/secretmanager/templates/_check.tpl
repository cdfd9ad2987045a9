{{- /* Values that do not go together, as a JSON list of texts. */ -}}
{{- define "secretmanager.valueProblems" -}}
{{- $problems := list -}}
{{- if not (or .Values.provider.enabled .Values.rotator.enabled) -}}
{{- $problems = append $problems "provider.enabled and rotator.enabled are both false: there is nothing to install. Set one of them." -}}
{{- end -}}
{{- if not .Values.vault.insecureHTTP -}}
{{- $plain := list -}}
{{- if not .Values.vault.existingConfigMap -}}
{{- $plain = append $plain (list "vault.address" .Values.vault.address) -}}
{{- end -}}
{{- range .Values.provider.allowedAddresses -}}
{{- $plain = append $plain (list "provider.allowedAddresses" .) -}}
{{- end -}}
{{- range $plain -}}
{{- /* As transit.PlainHTTP has it. */ -}}
{{- if and (hasPrefix "http://" (index . 1)) (not (regexMatch "^http://(localhost|127\\.[0-9]+\\.[0-9]+\\.[0-9]+|\\[::1\\])(:[0-9]*)?(/.*)?$" (index . 1))) -}}
{{- $problems = append $problems (printf "%s is %s: over plain HTTP everyone on the network can read tokens and plaintext. Use https, or accept that with vault.insecureHTTP: true, for development only." (index . 0) (index . 1)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.vault.ca.secret .Values.vault.ca.configMap -}}
{{- $problems = append $problems "vault.ca.secret and vault.ca.configMap are both set: the certificates come from one of them. Remove the other." -}}
{{- end -}}
{{- with .Values.rotator -}}
{{- if and .cluster .namespaces -}}
{{- $problems = append $problems "rotator.cluster is true and rotator.namespaces is not empty: with both it would have rights everywhere and look only there. Choose one of them." -}}
{{- end -}}
{{- if and (or .retire.enabled .retire.trim) (not .cluster) -}}
{{- $problems = append $problems "rotator.retire needs rotator.cluster: true: only a rotator that sees all Secrets knows that none is left behind. Set it, or remove rotator.retire." -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- $problems = append $problems "monitoring.podMonitor and monitoring.serviceMonitor are both enabled: all would be scraped and counted twice. Choose one of them." -}}
{{- end -}}
{{- $limit := ((.Values.provider.resources).limits).memory | default "" | toString -}}
{{- $soft := include "secretmanager.softMemory" . -}}
{{- $cache := include "secretmanager.mebibytes" .Values.provider.republishCache | default "0" -}}
{{- if and $limit (not $soft) -}}
{{- $problems = append $problems (printf "provider.resources.limits.memory is %q: Go's own limit is made of it, which takes a whole number of Mi or Gi, such as 256Mi." $limit) -}}
{{- else if and $soft (lt (int64 $soft) (mul 2 (int64 $cache))) -}}
{{- $problems = append $problems (printf "provider.republishCache is %s and provider.resources.limits.memory is %s: the provider would be killed before its cache is full. Give a limit of at least %dMi, or a smaller cache." (toString .Values.provider.republishCache) $limit (add1 (div (mul 64 (int64 $cache)) 27))) -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}

{{- /*
What is wrong with the driver, as a JSON list of texts. Where there is no cluster to
ask, as with `helm template`, lookup finds nothing at all, not even kube-system, and
nothing is said.
*/ -}}
{{- define "secretmanager.driverProblems" -}}
{{- $problems := list -}}
{{- if and .Values.driver.check .Values.provider.enabled (lookup "v1" "Namespace" "" "kube-system") -}}
{{- $driver := lookup "storage.k8s.io/v1" "CSIDriver" "" "secrets-store.csi.k8s.io" -}}
{{- $wanted := concat (list .Values.vault.audience) .Values.driver.audiences | uniq -}}
{{- if not $driver -}}
{{- $set := "enableSecretRotation=true,rotationPollInterval=0s" -}}
{{- range $index, $audience := $wanted -}}
{{- $set = printf "%s,tokenRequests[%d].audience=%s" $set $index $audience -}}
{{- end -}}
{{- $problems = append $problems (printf "The cluster has no CSIDriver secrets-store.csi.k8s.io: the Secrets Store CSI driver is not installed, and no pod could mount a secret.\n  Install it first, as docs/install.md says:\n  helm install csi-secrets-store secrets-store-csi-driver -n kube-system --repo https://kubernetes-sigs.github.io/secrets-store-csi-driver/charts --set '%s'" $set) -}}
{{- else -}}
{{- $spec := dict -}}
{{- $why := list -}}
{{- $has := list -}}
{{- range $driver.spec.tokenRequests -}}{{- $has = append $has (.audience | default "") -}}{{- end -}}
{{- $missing := list -}}
{{- $requests := $driver.spec.tokenRequests | default list -}}
{{- range $wanted -}}
{{- if not (has . $has) -}}
{{- $missing = append $missing (. | quote) -}}
{{- $requests = append $requests (dict "audience" .) -}}
{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- $names := list -}}
{{- range $has -}}{{- $names = append $names (. | quote) -}}{{- end -}}
{{- $why = append $why (printf "its tokenRequests lack the audience %s (they have %s), so the kubelet hands over no token to log in to Vault with" (join ", " $missing) (join ", " $names | default "none")) -}}
{{- $_ := set $spec "tokenRequests" $requests -}}
{{- end -}}
{{- if not $driver.spec.requiresRepublish -}}
{{- $why = append $why "its requiresRepublish is not true, so running pods would not see new values" -}}
{{- $_ := set $spec "requiresRepublish" true -}}
{{- end -}}
{{- if not $driver.spec.podInfoOnMount -}}
{{- $why = append $why "its podInfoOnMount is not true, so the provider would not learn whose volume it is" -}}
{{- $_ := set $spec "podInfoOnMount" true -}}
{{- end -}}
{{- if $why -}}
{{- $problems = append $problems (printf "The CSIDriver secrets-store.csi.k8s.io is not set up for this: %s.\n  Set tokenRequests and enableSecretRotation in the values of the driver's chart (docs/install.md), or at once:\n  kubectl patch csidriver secrets-store.csi.k8s.io --type=merge -p '%s'" (join "; " $why) (dict "spec" $spec | toJson)) -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- $problems = append $problems "To install all the same, and set up the driver later: --set driver.check=false" -}}
{{- end -}}
{{- end -}}
{{- toJson $problems -}}
{{- end -}}
