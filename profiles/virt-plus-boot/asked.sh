# SPDX-License-Identifier: GPL-2.0-or-later
# asked.sh VARIABLES-FILE: print the profile that puts huge pages on the kernel's command line, if the file asks for it.
#
# TuneD expands the includes of a profile before it reads any variable, so the file is read here.

boot= observe=
IFS="= $(printf '\t\r')"
while read -r name value rest || [ -n "$name" ]; do
    case $rest in '' | '#'*) ;; *) value="$value $rest" ;; esac
    case $name in
    hugepages_boot) boot=$value ;;
    observe) observe=$value ;;
    esac
done < "$1"

case $observe in '' | '#'* | 0 | [nN][oO] | [fF][aA][lL][sS][eE] | [oO][fF][fF]) ;; *) exit 0 ;; esac
if [ "$boot" = auto ]; then printf virt-plus-boot; fi
